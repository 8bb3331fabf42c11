"""A synthetic street: `layout` places the labelled, `surroundings` the rest, `render` and `sensor` make the image."""
