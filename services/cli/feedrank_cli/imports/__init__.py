"""Formats that `feedrank import` reads, a file each: `HELP` and `bring(path, landing)`."""
