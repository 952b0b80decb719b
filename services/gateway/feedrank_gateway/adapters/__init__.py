"""Real and fake ends of the gateway's ports."""
