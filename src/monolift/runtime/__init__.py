"""Exported models without torch: onnxruntime (or OpenVINO), numpy and Pillow are all that is needed.

    from monolift.runtime import load

    model = load("smoke.onnx")
    found = model.detect("street.jpg", camera=(721.5, 721.5, 609.6, 172.9))
    found.center, found.size, found.yaw            # metres, radians; x right, y down, z forward

This folder imports nothing else of monolift, only relative paths within itself: ``monolift export --folder`` copies it beside a
model, for deployment without monolift installed. What it knows twice (image files, windows, projections, the decoding of SMOKE
and SS3D) is tested against the originals.

    model       a session, its description, from an image to objects
    image_file  from an image file to pixels
    window      the window through which a network sees an image
    ``lens``    camera and boxes in numpy
    camera_check  whether a camera can belong to its image
    camera_file   the camera in a calib file
    smoke       SMOKE's raw maps to boxes
    ss3d        SS3D's raw maps to boxes
    ``ss3d_fit``  the fit of a box to its 26 parameters
    found       what comes out: arrays, JSON, KITTI rows
"""

from __future__ import annotations

from .camera_file import read_camera
from .found import Found
from .model import Model, RuntimeInputError, load

__all__ = ["Found", "Model", "RuntimeInputError", "load", "read_camera"]
