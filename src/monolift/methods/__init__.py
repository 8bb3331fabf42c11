"""Published systems, one folder each. No method imports another; what they offer is ``monolift.methods.base``."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from monolift.errors import InputError

if TYPE_CHECKING:
    from monolift.methods.base import Method

METHODS = ("smoke", "ss3d", "roi10d")
"""The trained detectors that ship with the package. MonoDR is fitted, see ``monolift.methods.fitter``."""
ENTRY_POINTS = "monolift.methods"
"""Group of entry points in which an installed package names its methods: NAME = "package.module:METHOD"."""

_registered: dict[str, Method[Any]] = {}


def register(method: Method[Any]) -> Method[Any]:
    """Make a method known by its name to training, detection, export and checkpoints of this process; returns it.

    Raises InputError where another method has the name. Registering the same one again changes nothing.
    """
    there = get_method(method.name) if method.name in method_names() else method
    if there is not method:
        raise InputError(f"method {method.name!r} already exists: {there.title}")
    _registered[method.name] = method
    return method


def method_names() -> tuple[str, ...]:
    """Names of all methods: those here, registered ones, and those of installed packages."""
    installed = (entry.name for entry in entry_points(group=ENTRY_POINTS))
    return tuple(dict.fromkeys((*METHODS, *_registered, *installed)))


def get_method(name: str) -> Method[Any]:
    """A method by name: its presets, recipes, statistics and detector. Raises InputError for an unknown name."""
    if name in METHODS:
        found: Method[Any] = importlib.import_module(f"monolift.methods.{name}").METHOD
        return found
    if name not in _registered:
        entry = next((one for one in entry_points(group=ENTRY_POINTS) if one.name == name), None)
        if entry is None:
            raise InputError(f"method must be one of {', '.join(method_names())}, got {name!r}")
        _registered[name] = entry.load()
    return _registered[name]


def method_of(config: object) -> Method[Any]:
    """The method whose configuration this is. Raises InputError for anything else."""
    known = [get_method(name) for name in method_names()]
    found = next((method for method in known if type(config) is method.config), None)
    if found is None:
        names = ", ".join(method.config.__name__ for method in known)
        raise InputError(f"config: expected one of {names}, got {type(config).__name__}")
    return found
