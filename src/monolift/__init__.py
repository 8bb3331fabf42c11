"""monolift: one photograph and its camera in, metric 3D boxes out.

    import monolift
    model = monolift.load("smoke")
    result = model.detect("street.jpg", camera=monolift.Camera(fx=721.5, fy=721.5, cx=609.6, cy=172.9))
    result.boxes.center, result.boxes.size, result.boxes.yaw  # metres, radians; camera frame
    result.save_image("out.png")

Conventions (frames, units, pixel centres, angles) stand on one page: ``help(monolift.geometry)``.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from monolift.convert import convert as convert
    from monolift.data.sample import Detections as Detections
    from monolift.data.sample import Sample as Sample
    from monolift.detect import Model as Model
    from monolift.detect import detect as detect
    from monolift.detect import load as load
    from monolift.errors import InputError as InputError
    from monolift.evaluate import evaluate as evaluate
    from monolift.geometry import Boxes3D as Boxes3D
    from monolift.geometry import Camera as Camera
    from monolift.result import Results3D as Results3D
    from monolift.train import TrainOptions as TrainOptions
    from monolift.train import train as train

# Where each public name lives. Nothing is imported before it is asked for: torch alone takes seconds.
_HOME = {
    "Boxes3D": "monolift.geometry",
    "Camera": "monolift.geometry",
    "Detections": "monolift.data.sample",
    "InputError": "monolift.errors",
    "Model": "monolift.detect",
    "Results3D": "monolift.result",
    "Sample": "monolift.data.sample",
    "TrainOptions": "monolift.train",
    "load": "monolift.detect",
}
_VERBS = ("convert", "detect", "evaluate", "train")

__all__ = ["__version__", *_HOME, *_VERBS]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name in _VERBS:
        return importlib.import_module(f"monolift.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'monolift' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Verb(ModuleType):
    """A module whose main function has its name: ``monolift.detect(...)`` is ``monolift.detect.detect(...)``."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Package(ModuleType):
    """The import system binds a submodule to its package; those named like a verb become callable at that moment.

    So ``monolift.train`` is one and the same object before and after somebody wrote ``import monolift.train``.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _VERBS and isinstance(value, ModuleType):
            value.__class__ = _Verb
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
