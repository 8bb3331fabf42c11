"""A training in words: which preset and which changed settings a configuration and a recipe amount to, and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from monolift.errors import InputError
from monolift.files.settings import (
    COUNT,
    NOT_NEGATIVE,
    SEED,
    Range,
    apply_settings,
    as_setting,
    check_fields,
    differences,
    split_settings,
)
from monolift.methods.base import DetectorConfig, Method
from monolift.methods.recipe import Recipe

LIMITS = {
    "seed": SEED,
    "workers": Range(0, 256),
    "val_every": COUNT,
    "save_minutes": NOT_NEGATIVE,
}


@dataclass(frozen=True)
class RunOptions:
    """What a training is asked for beyond configuration, recipe and data; `monolift.train` explains each.

    Raises:
        InputError: for a value that cannot be.
    """

    split: Any = None
    val_split: Any = None
    init: str | Path | None = None
    init_partial: bool = False
    keep: frozenset[str] = frozenset()
    measure: bool = True
    seed: int = 0
    device: str = "auto"
    workers: int = 0
    val_every: int = 5
    save_minutes: float = 5.0
    resume: bool = False
    overwrite: bool = False
    tensorboard: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        check_fields("", self, limits=LIMITS)


@dataclass(frozen=True)
class Chosen:
    """What a preset and changed settings make.

    config, recipe: of the method; keep: the configuration's fields that were set, which are not measured on the data
    measure: whether the others are; not where a preset's constants are published
    """

    config: DetectorConfig
    recipe: Recipe
    keep: frozenset[str]
    measure: bool


def choose(
    method: Method,
    preset: str = "default",
    given: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    where: str = "",
) -> Chosen:
    """Configuration and recipe of a preset, changed by a file's values and then by ``key=value`` texts.

    Args:
        given: nested values
        where: the file they are from, for messages.

    Raises:
        InputError: for what does not fit.
    """
    if preset not in method.presets:
        raise InputError(f"{method.name} preset must be one of {', '.join(method.presets)}, got {preset!r}")
    config, recipe = method.presets[preset](), method.recipes[preset]
    if given:
        try:
            config, recipe = apply_settings((config, recipe), given, f"{where}: settings.")
        except InputError as error:
            raise error if where in str(error) else InputError(f"{where}: {error}") from None
    config, recipe = apply_settings((config, recipe), settings)
    names = {*(given or {}), *split_settings(settings)}
    if "epochs" in names and "steps" not in names:  # a preset's steps give way to what the user counts in
        recipe = replace(recipe, steps=0)
    keep = names & {f.name for f in fields(config)}
    return Chosen(config, recipe, frozenset(keep), preset not in method.fixed)


def described(
    method: Method, config: DetectorConfig, measured: DetectorConfig, recipe: Recipe, keep: Collection[str]
) -> tuple[str, dict[str, Any]]:
    """The nearest preset and the values that make it this training: `choose` gives the same configuration and recipe.

    config, measured: before and after the data's statistics, which are left out unless named in ``keep``.
    """

    def distance(preset: str) -> int:
        pairs = ((method.presets[preset](), config), (method.recipes[preset], recipe))
        return sum(len(differences(*pair)) for pair in pairs)

    preset = min(method.presets, key=distance)
    made = method.presets[preset]()
    found = set(differences(config, measured))
    changes = {name: new for name, (_, new) in differences(made, config).items() if name not in found}
    changes |= {f.name: getattr(config, f.name) for f in fields(config) if f.name in keep}
    changes |= {name: new for name, (_, new) in differences(method.recipes[preset], recipe).items()}
    return preset, changes


def as_settings(changes: Mapping[str, Any]) -> list[str]:
    """The changes as ``--set`` takes them."""
    return [as_setting(name, value) for name, value in changes.items()]
