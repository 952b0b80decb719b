"""Takes events in, and keeps them: the HTTP intake and the lake sink."""
