"""From images to detections: checkpoints, the bundled models, the one inference path, results."""
