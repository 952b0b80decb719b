"""Protocols of published tables: data in, figures of the two-tower out."""
