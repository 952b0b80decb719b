"""Offline metrics, pure numpy."""
