"""Masks and depth: from files, or from models of the user's own."""

from __future__ import annotations

from monolift.autolabel.observe import Depth, DepthFiles, MaskFiles, Masks
from monolift.data.masks import open_masks


def open_mask_finder(spec: str) -> Masks:
    return MaskFiles(open_masks(spec))


def open_depth(spec: str, scale: float | None = None) -> Depth:
    return DepthFiles(spec, scale)
