"""The feed API."""
