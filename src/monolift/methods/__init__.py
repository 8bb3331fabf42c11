"""Published systems, one folder each. No method imports another; what they offer is ``monolift.methods.base.Detector``."""

from __future__ import annotations

import importlib
from typing import Any

from monolift.errors import InputError

METHODS = {
    "smoke": "monolift.methods.smoke:Smoke",
    "ss3d": "monolift.methods.ss3d:SS3D",
    "roi10d": "monolift.methods.roi10d:ROI10D",
}


def method_class(name: str) -> Any:
    """The detector class of a method: ``method_class("smoke").from_preset("paper")``."""
    if name not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {name!r}")
    module, attribute = METHODS[name].split(":")
    return getattr(importlib.import_module(module), attribute)
