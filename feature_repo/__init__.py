"""Feedrank's features as Feast sees them: entities, sources, views, services.

Imports only Feast and the contracts. Importing it costs what importing Feast costs (ten seconds),
so whoever needs it imports it late, and no streaming or request path does.
"""
