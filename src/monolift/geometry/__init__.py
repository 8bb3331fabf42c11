"""Geometry, and the conventions of the whole package on one page.

Frames
    Camera frame: x right, y down, z forward. Metres, radians, pixels; anything else wears a suffix (``_deg``).
    Object frame: x = length (the heading), y = height (down), z = width; origin in the middle of the box.
    Names say the frames and neighbours cancel: ``px_from_cam(cam_from_object @ point)``.

Pixels
    Centres are at integers, as in OpenCV and KITTI: an image of width W spans [-0.5, W - 0.5].
    Resizing by s maps u -> s (u + 0.5) - 0.5. Mirroring maps u -> W - 1 - u.

Boxes
    ``Boxes3D.center`` is the geometric centre; ``size`` is (length, height, width); ``yaw`` turns about +y and is 0 when the
    object heads along +x (KITTI's rotation_y). KITTI's bottom centre and h, w, l order exist only in ``monolift.data``.
    2D boxes are (x1, y1, x2, y2).

Angles
    alpha = yaw - atan2(x, z) is what an object looks like; yaw is where it heads. Wrapped to [-pi, pi).
    The mirror image of yaw is wrap(pi - yaw), that of alpha is wrap(pi - alpha).

Cameras
    P2 = K [I | t] is used whole: the image's camera is displaced from the frame of the labels by t (0.06 m in KITTI).
    Mirroring negates t's x part. ``Camera`` follows the image: ``after_resize``, ``after_crop``, ``after_mirror``.

Letters
    B images, N boxes, K classes, H W image, h w feature map, V vertices, F faces.
"""

from monolift.geometry.boxes import CORNER_SIGNS, EDGES, FRONT, Boxes3D
from monolift.geometry.camera import Camera, clip_to_image
from monolift.geometry.iou import (
    bev_intersection,
    iou_2d,
    iou_2d_paired,
    iou_3d,
    iou_3d_paired,
    iou_bev,
    iou_bev_paired,
)
from monolift.geometry.rotations import alpha_from_yaw, wrap, yaw_from_alpha

__all__ = [
    "CORNER_SIGNS",
    "EDGES",
    "FRONT",
    "Boxes3D",
    "Camera",
    "alpha_from_yaw",
    "bev_intersection",
    "clip_to_image",
    "iou_2d",
    "iou_2d_paired",
    "iou_3d",
    "iou_3d_paired",
    "iou_bev",
    "iou_bev_paired",
    "wrap",
    "yaw_from_alpha",
]
