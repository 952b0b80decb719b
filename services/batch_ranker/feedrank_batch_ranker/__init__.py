"""Embeds the catalogue, builds the index, and ranks it for every user."""
