"""Measurements, one file each: `NAME`, `HELP` and `run(home, *, quick, seed) -> Report`."""
