"""Square windows round objects, each seen by a camera of its own."""

from __future__ import annotations

import dataclasses

import torch

from monolift.errors import InputError
from monolift.geometry import Camera
from monolift.typing import Float, Tensor


def crop_cameras(cameras: Camera, boxes: Float[Tensor, "n 4"], size: int, margin: float = 0.1) -> Camera:
    """Cameras (N,) whose images are the square crops of ``size`` pixels round 2D boxes (x1, y1, x2, y2), pixels.

    The crop's side is the box's longer side times 1 + 2 margin. ``cameras`` is one camera for all boxes, or a batch with
    one per box. Fixed from the detection: nothing of it depends on the pose that is being fitted.

    Raises:
        InputError: for a box without extent (its crop has no scale).
    """
    boxes = boxes.to(device="cpu", dtype=torch.float64)
    extent = boxes[:, 2:] - boxes[:, :2]
    if not bool((extent.amax(1) > 0).all()):
        bad = int((~(extent.amax(1) > 0)).nonzero()[0])
        raise InputError(f"box {bad} has no extent to crop round: {boxes[bad].tolist()}")
    side = extent.amax(1) * (1 + 2 * margin)
    scale = size / side
    # The window starts at its edge, half a pixel before the centre of its first pixel.
    left, top = ((boxes[:, :2] + boxes[:, 2:]) / 2 - side[:, None] / 2).unbind(1)
    return dataclasses.replace(
        cameras,
        fx=cameras.fx * scale,
        fy=cameras.fy * scale,
        cx=(cameras.cx - left) * scale - 0.5,
        cy=(cameras.cy - top) * scale - 0.5,
        width=size,
        height=size,
    )
