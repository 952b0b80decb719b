"""The feedrank command: one machine, one day, one look."""
