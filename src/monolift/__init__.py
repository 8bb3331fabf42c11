"""monolift: one image and its camera in, metric 3D boxes out.

    import monolift
    model = monolift.load("smoke")
    result = model.detect("street.jpg", camera=monolift.Camera(fx=721.5, fy=721.5, cx=609.6, cy=172.9))
    result.boxes.center, result.boxes.size, result.boxes.yaw  # metres, radians; camera frame
    result.save_image("out.png")

Conventions (frames, units, pixel centres, angles) stand on one page: ``help(monolift.geometry)``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from monolift.data.formats.convert import convert as convert
    from monolift.data.sample import Detections as Detections
    from monolift.data.sample import Objects as Objects
    from monolift.data.sample import Sample as Sample
    from monolift.errors import InputError as InputError
    from monolift.evaluation import evaluate as evaluate
    from monolift.geometry import Boxes3D as Boxes3D
    from monolift.geometry import Camera as Camera
    from monolift.inference.model import Model as Model
    from monolift.inference.model import detect as detect
    from monolift.inference.model import load as load
    from monolift.inference.results import Results3D as Results3D
    from monolift.training.train import train as train

# Where each public name lives. Imported on first use (PEP 562), because torch alone takes seconds. No module of the package
# bears one of these names, so ``monolift.train`` is the function, whatever was imported before.
_HOME = {
    "Boxes3D": "monolift.geometry",
    "Camera": "monolift.geometry",
    "Detections": "monolift.data.sample",
    "InputError": "monolift.errors",
    "Model": "monolift.inference.model",
    "Objects": "monolift.data.sample",
    "Results3D": "monolift.inference.results",
    "Sample": "monolift.data.sample",
    "convert": "monolift.data.formats.convert",
    "detect": "monolift.inference.model",
    "evaluate": "monolift.evaluation",
    "load": "monolift.inference.model",
    "train": "monolift.training.train",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'monolift' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
