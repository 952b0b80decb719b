"""A world of readers with known tastes who read feeds and act."""
