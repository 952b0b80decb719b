"""Online stores, engines of the batch, and what stands for them in tests."""
