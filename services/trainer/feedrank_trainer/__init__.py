"""Labels, the two-tower, its evaluation, and the bundle."""
