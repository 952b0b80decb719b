"""The feed API: cached candidates in, a spread and fresh page out, a slate logged."""
