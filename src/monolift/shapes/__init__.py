"""What a car may look like."""
