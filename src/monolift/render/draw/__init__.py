"""Images to look at: boxes drawn over an image and from above."""
