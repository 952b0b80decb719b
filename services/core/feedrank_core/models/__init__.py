"""Model architecture in torch; open to the trainer alone."""
