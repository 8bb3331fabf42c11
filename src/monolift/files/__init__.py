"""The only doors to the disk: text, JSON, images, folders, progress. Knows no boxes and no torch."""
