"""monolift: one photograph and its camera in, metric 3D boxes out."""
