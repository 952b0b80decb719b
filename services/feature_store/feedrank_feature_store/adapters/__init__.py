"""Online stores behind the port: Feast, and one in memory for tests."""
