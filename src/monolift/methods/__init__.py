"""Published systems, one folder each. No method imports another; what they offer is ``monolift.methods.base``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from monolift.errors import InputError

if TYPE_CHECKING:
    from monolift.methods.base import Method

METHODS = ("smoke", "ss3d", "roi10d")  # the trained detectors; MonoDR is fitted, see monolift.methods.monodr


def get_method(name: str) -> Method:
    """A method by name: its presets, recipes, statistics and detector. Raises InputError for an unknown name."""
    if name not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {name!r}")
    found: Method = importlib.import_module(f"monolift.methods.{name}").METHOD
    return found
