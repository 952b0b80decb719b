"""`feedrank import` inside: a format hands on rows, a mapping names them, a route keeps them."""
