"""The cells of SMOKE's maps."""

from __future__ import annotations

import torch

from monolift.typing import Int, Tensor

STRIDE = 4
"""Network pixels of a cell's side."""


def columns_rows(cell: Int[Tensor, " n"], width: int) -> Int[Tensor, "n 2"]:
    """Column and row of flat cells. Integer division: true division would add column / width to the row."""
    return torch.stack([cell % width, torch.div(cell, width, rounding_mode="floor")], 1)
