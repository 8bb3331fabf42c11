"""Published systems, one folder each. No method imports another."""
