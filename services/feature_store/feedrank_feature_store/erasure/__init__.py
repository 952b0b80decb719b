"""Erasures and merges on what the feature store owns beside its stream: tables and the cache."""
