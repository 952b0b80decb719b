"""Pure ranking stages and value formats."""
