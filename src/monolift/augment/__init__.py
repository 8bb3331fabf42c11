"""Data augmentation: crop, scale, flip, colour jitter, pasted cars."""
