"""Training views: crops, zoom, mirror, colour, and pasted cars."""
