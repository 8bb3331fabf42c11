"""A training as the command line asks for it: a method, its preset and ``key=value`` settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monolift.methods import get_method
from monolift.training.options import choose
from monolift.training.train import train


def train_with(
    method: str, data: Any, out: Path, settings: Sequence[str] = (), preset: str = "default", **more: Any
) -> Path:
    """`train` on the CPU, quietly, with the configuration and recipe that the settings make."""
    chosen = choose(get_method(method), preset, settings=settings)
    options = {"device": "cpu", "quiet": True, "keep": chosen.keep, "measure": chosen.measure, **more}
    return train(chosen.config, chosen.recipe, data, out, **options)
