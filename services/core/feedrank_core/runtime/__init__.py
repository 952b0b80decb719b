"""I/O that two or more services share: bus, lake, cache, bundle store, HTTP base, metrics, logs."""
