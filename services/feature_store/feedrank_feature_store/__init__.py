"""Feast: definitions applied, features extracted, materialised and kept current."""
