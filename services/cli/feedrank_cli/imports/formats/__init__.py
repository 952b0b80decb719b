"""Formats that `feedrank import` reads, a file each: `HELP`, `ROUTES` and `sources(path)`."""
