"""The rules by which the golden values of SMOKE's released code were made: weights, network input, raw maps, scenes."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monolift.data.formats.kitti_format import read_calib, read_labels
from monolift.data.kitti import sample_from_labels
from monolift.data.sample import Sample
from monolift.geometry import Camera
from monolift.typing import Tensor

FOLDER = Path(__file__).parents[1] / "methods/golden_smoke"


def rng(text: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(text.encode()))


def released_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the entries of a released checkpoint."""
    rows = [line.split("\t") for line in (FOLDER / "state_dict.tsv").read_text().splitlines()[1:]]
    return {name: tuple(map(int, shape.split("x"))) for name, shape in rows}


def filled(name: str, shape: tuple[int, ...]) -> Tensor:
    """The entry of a checkpoint filled by rule."""
    value = rng(name).standard_normal(shape)
    if len(shape) > 1:
        value *= math.sqrt(2 / math.prod(shape[1:])) * (0.3 if "conv_offset_mask" in name else 1)
    else:
        value = 1 + 0.1 * value if name.endswith(".weight") else 0.1 * value
    return torch.from_numpy(value).float()


def raw_maps(frames: list[str]) -> dict[str, Tensor]:
    """What the heads would give for these frames."""
    heat, regression = [], []
    for frame in frames:
        g = rng(f"raw/{frame}")
        heat.append(-4.6 + g.standard_normal((3, 96, 320)))
        r = g.standard_normal((8, 96, 320))
        r[1:3] = 0.5 + 0.3 * r[1:3]
        regression.append(r)
    return {
        "heatmap": torch.tensor(np.stack(heat)).float(),
        "regression": torch.tensor(np.stack(regression)).float(),
    }


@lru_cache
def golden(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """A file of golden values."""
    path = folder / name
    if path.suffix == ".json":
        return dict(json.loads(path.read_text()))
    with np.load(path) as values:
        return {key: values[key] for key in values}


def grid_camera(values: dict[str, Any], key: str) -> Camera:
    """The camera whose pixels are four to a cell of the released code's own grid, which is half a pixel off the image's."""
    t, k = (values[f"{key}/{field}"].astype(float) for field in ("trans_mat", "K"))
    sx, sy = 4 * t[0, 0], 4 * t[1, 1]
    cx, cy = sx * k[0, 2] + 4 * t[0, 2], sy * k[1, 2] + 4 * t[1, 2]
    return Camera(sx * k[0, 0], sy * k[1, 1], cx, cy, width=1280, height=384)


def scene(values: dict[str, Any], variant: str, frame: str, labels: Path = FOLDER / "label_2") -> Sample:
    """A labelled scene as the network sees it, on the released code's grid, without pixels."""
    image = torch.zeros(3, 1, 1, dtype=torch.uint8).expand(3, 384, 1280)
    camera = grid_camera(values, f"{variant}/{frame}")
    sample = sample_from_labels(frame, image, camera, read_labels(labels / f"{frame}.txt"))
    boxes = sample.boxes.mirrored() if "flip" in variant else sample.boxes
    return replace(sample, boxes=boxes, rescaled="affine" in variant)


def source_matrix(frame: str, calib: Path = FOLDER / "calib") -> np.ndarray:
    """P2 of a scene."""
    return np.asarray(read_calib(calib / f"{frame}.txt").p2)
