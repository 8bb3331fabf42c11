"""Training: the loop, its options, the optimiser, validation."""
