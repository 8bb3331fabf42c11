"""The subcommands: their names, what each does in a line, and where it is."""

from __future__ import annotations

SUBCOMMANDS = {
    "demo": "run the bundled model on a sample image with ground truth",
    "detect": "detect 3D boxes in images, folders, videos, camera streams",
    "train": "train a detector on KITTI-format data",
    "evaluate": "official KITTI AP of a folder of results",
    "autolabel": "3D boxes from instance masks and depth, without 3D labels",
    "inspect": "check a KITTI-format data set, plot its labels",
    "view": "view boxes, points, meshes in the browser; review labels",
    "convert": "convert between KITTI, nuScenes, Omni3D and COCO",
    "rectify": "rectify images of a fisheye camera",
    "convert-checkpoint": "import a checkpoint of lzccccc/SMOKE or MMDetection3D",
    "synth": "render a synthetic KITTI with labels, masks and depth",
    "export": "export to ONNX, checked against PyTorch",
    "augment": "paste cars into labelled images",
    "shapes": "train car shape spaces, interpolate, label cars with codes",
    "depth": "train a depth network on stereo pairs or video",
    "serve": "serve a model over HTTP, with a page to try it",
    "models": "list the bundled models",
    "completion": "print a script that completes commands in a shell",
}


def module_name(subcommand: str) -> str:
    """The module of a subcommand."""
    return f"monolift.commands.{subcommand.replace('-', '_')}"


def class_name(subcommand: str) -> str:
    """The class of a subcommand's options, in its module."""
    return "".join(part.capitalize() for part in subcommand.split("-"))
