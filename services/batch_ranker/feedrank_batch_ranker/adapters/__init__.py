"""The engines behind the `Index` port; one test class holds them to it."""
