"""Sources of masks and depth: files, or models run on the fly.

    model:maskrcnn:WEIGHTS.pth          torchvision's Mask R-CNN (ResNet-50 FPN v2, COCO classes): masks
    model:rfdetr-seg-medium:WEIGHTS.pth RF-DETR-Seg, nano to 2xlarge: masks
    model:onnx:FILE.onnx                masks: gives boxes (N, 4), scores, labels (COCO's numbers) and masks of an image;
                                        depth: gives metres
    model:transformers:FOLDER           a metric depth model of Hugging Face's transformers: depth

Weights are files that are there: nothing is downloaded. The packages come with ``pip install "monolift[autolabel]"``
(onnxruntime: ``monolift[onnx]``) and are imported when asked for. What a depth model gives is checked like a file: relative and
inverse depth are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from monolift.autolabel.observe import CalibratedImage, Depth, DepthFiles, MaskFiles, Masks
from monolift.data.formats.coco_masks import COCO_CLASSES
from monolift.data.formats.depth_maps import check_units
from monolift.data.formats.frames import kitti_name
from monolift.data.formats.instances import HALF_PIXEL, Instances, instances_of
from monolift.data.formats.masks import open_masks
from monolift.errors import InputError, MissingExtraError
from monolift.typing import Float, Tensor, UInt8

RFDETR = {
    f"rfdetr-seg-{size.lower()}": f"RFDETRSeg{size}"
    for size in ("Nano", "Small", "Medium", "Large", "XLarge", "2XLarge")
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as depth networks expect
LOWEST_SCORE = 0.05  # of what is asked from a model; `Selection` decides what is fitted

Array = npt.NDArray[Any]
RawMasks = Callable[[UInt8[Tensor, "3 H W"]], tuple[Array, Array, Array, Array]]
"""An image -> masks (N, H, W) bool, boxes (N, 4) from the image's corner, scores (N,), labels (N,) in COCO's numbers."""
RawDepth = Callable[[UInt8[Tensor, "3 H W"]], Tensor]
"""An image -> depth (h, w), metres, of any size."""


def open_mask_finder(spec: str) -> Masks:
    """Masks from a path or a model. Raises InputError for what is neither, MissingExtraError for a missing package."""
    model = _model(
        spec, "masks", {"maskrcnn": _maskrcnn, "onnx": _onnx_masks, **dict.fromkeys(RFDETR, _rfdetr)}
    )
    return MaskFiles(open_masks(spec)) if model is None else MaskModel(spec, model)


def open_depth(spec: str, scale: float | None = None) -> Depth:
    """Depth from a folder or a model. Raises as `open_mask_finder`."""
    model = _model(spec, "depth", {"transformers": _transformers, "onnx": _onnx_depth})
    return DepthFiles(spec, scale) if model is None else DepthModel(spec, model, scale)


def _model(spec: str, what: str, known: dict[str, Callable[[str, Path], Any]]) -> Any:
    """The model that ``model:NAME:PATH`` names; None for a spec that is a path."""
    kind, _, rest = spec.partition(":")
    if kind != "model":
        return None
    name, _, path = rest.partition(":")
    if name not in known or not path:
        forms = ", ".join(f"model:{n}:PATH" for n in known)
        raise InputError(f"--{what} {spec}: expected files, or a model as one of {forms}")
    if not Path(path).exists():
        raise InputError(
            f"--{what} {spec}: {path}: no such file or folder of weights (nothing is downloaded)"
        )
    return known[name](name, Path(path))


@dataclass(frozen=True)
class MaskModel:
    """Masks of a model."""

    name: str
    model: RawMasks
    names: tuple[str, ...] | None = None

    def find(self, photo: CalibratedImage) -> Instances:
        masks, boxes, scores, labels = self.model(photo.image)
        likely = scores >= LOWEST_SCORE
        classes = [kitti_name(COCO_CLASSES.get(int(k), "Misc")) for k in labels[likely]]
        where = f"{self.name}: {photo.name}"
        return instances_of(masks[likely], boxes[likely] - HALF_PIXEL, scores[likely], classes, where)


@dataclass(frozen=True)
class DepthModel:
    """Depth of a model, brought to the image's size; times ``scale`` where it is given."""

    name: str
    model: RawDepth
    scale: float | None = None
    names: tuple[str, ...] | None = None

    def find(self, photo: CalibratedImage) -> Float[Tensor, "H W"]:
        raw = self.model(photo.image).float()
        size = (photo.size[1], photo.size[0])
        depth = F.interpolate(raw[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        depth = torch.where(depth.isfinite() & (depth > 0), depth, 0) * (self.scale or 1.0)
        if self.scale is None:
            check_units(depth, photo.camera, f"{self.name}: {photo.name}")
        return depth


def _package(name: str, feature: str, extra: str = "autolabel") -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtraError(feature, extra) from None


# --- masks


def _maskrcnn(name: str, weights: Path) -> RawMasks:
    detection = _package("torchvision.models.detection", "model:maskrcnn")
    network = detection.maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{weights}: not weights of maskrcnn_resnet50_fpn_v2 ({reason})") from None
    network.eval()

    def find(image: UInt8[Tensor, "3 H W"]) -> tuple[Array, Array, Array, Array]:
        with torch.no_grad():
            found = network([image.float() / 255])[0]
        boxes, scores, labels = (found[key].numpy() for key in ("boxes", "scores", "labels"))
        return (found["masks"][:, 0] > 0.5).numpy(), boxes, scores, labels

    return find


def _rfdetr(name: str, weights: Path) -> RawMasks:
    network = getattr(_package("rfdetr", f"model:{name}"), RFDETR[name])(pretrain_weights=str(weights))

    def find(image: UInt8[Tensor, "3 H W"]) -> tuple[Array, Array, Array, Array]:
        from PIL import Image

        found = network.predict(Image.fromarray(image.permute(1, 2, 0).numpy()), threshold=LOWEST_SCORE)
        masks = np.zeros((0, *image.shape[1:]), bool) if found.mask is None else found.mask.astype(bool)
        return masks, found.xyxy, found.confidence, found.class_id

    return find


def _onnx_masks(name: str, file: Path) -> RawMasks:
    session = _session(file)
    feed = session.get_inputs()[0]

    def find(image: UInt8[Tensor, "3 H W"]) -> tuple[Array, Array, Array, Array]:
        pixels = (image.float() / 255).numpy()
        outputs = _run(session, {feed.name: pixels[None] if len(feed.shape) == 4 else pixels}, file)
        height, width = image.shape[1:]
        boxes = [o for o in outputs if o.ndim == 2 and o.shape[1] == 4]
        labels = [o for o in outputs if o.ndim == 1 and o.dtype.kind in "iu"]
        scores = [o for o in outputs if o.ndim == 1 and o.dtype.kind == "f"]
        masks = [
            o.reshape(-1, height, width) for o in outputs if o.ndim >= 3 and o.shape[-2:] == (height, width)
        ]
        if not (len(boxes) == len(labels) == len(scores) == len(masks) == 1):
            shapes = ", ".join(f"{o.dtype} {o.shape}" for o in outputs)
            raise InputError(
                f"{file}: expected boxes (N, 4), scores (N,), labels (N,) and masks (N, {height}, {width}) of an image, "
                f"as torchvision's Mask R-CNN is exported; got {shapes}"
            )
        return masks[0] > 0.5, boxes[0], scores[0], labels[0]

    return find


# --- depth


def _transformers(name: str, folder: Path) -> RawDepth:
    package = _package("transformers", "model:transformers")
    try:
        processor = package.AutoImageProcessor.from_pretrained(str(folder), local_files_only=True)
        network = package.AutoModelForDepthEstimation.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder}: not a depth model of transformers ({reason})") from None
    network.eval()

    def find(image: UInt8[Tensor, "3 H W"]) -> Tensor:
        with torch.no_grad():
            depth: Tensor = network(**processor(images=image, return_tensors="pt")).predicted_depth
        return depth[0]

    return find


def _onnx_depth(name: str, file: Path) -> RawDepth:
    session = _session(file)
    feed = session.get_inputs()[0]

    def find(image: UInt8[Tensor, "3 H W"]) -> Tensor:
        # Sizes that the file leaves open are the image's, cut to patches of 14 pixels (vision transformers of depth).
        free = [s // 14 * 14 for s in image.shape[1:]]
        size = [s if isinstance(s, int) else f for s, f in zip(feed.shape[-2:], free, strict=True)]
        pixels = F.interpolate(
            image[None].float() / 255, size, mode="bilinear", align_corners=False, antialias=True
        )
        mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
        outputs = _run(session, {feed.name: ((pixels - mean) / std).numpy()}, file)
        depth = outputs[0].squeeze()
        if depth.ndim != 2 or depth.dtype.kind != "f":
            raise InputError(
                f"{file}: expected depth (h, w) of an image, got {depth.dtype} {outputs[0].shape}"
            )
        return torch.from_numpy(depth)

    return find


def _session(file: Path) -> Any:
    package = _package("onnxruntime", "model:onnx", "onnx")
    try:
        return package.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes share no base but this
        raise InputError(f"{file}: not a readable ONNX model ({str(error).splitlines()[0]})") from None


def _run(session: Any, feed: dict[str, Array], file: Path) -> list[Array]:
    try:
        return list(session.run(None, feed))
    except Exception as error:  # as above: wrong sizes and ranks of the input
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{file}: cannot take an image of {next(iter(feed.values())).shape} ({reason})"
        ) from None
