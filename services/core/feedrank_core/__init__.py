"""What two or more services share: contracts, pure ranking and feature code, I/O adapters."""
