"""Checkpoints of other programs: one file of tensors, recognised by the names of its entries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monolift.errors import InputError

if TYPE_CHECKING:
    from monolift.methods.base import Detector, Method, Released
    from monolift.nn.pretrained import WeightFile

LIKE = "the released checkpoints of docs/released_weights.md"
WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


@dataclass(frozen=True)
class ForeignCheckpoint:
    """A file of another program that is recognised.

    method: ours for it; found: its weights and configuration
    """

    path: Path
    method: Method[Any]
    found: Released[Any]

    def detector(self) -> Detector[Any, Any]:
        """The detector of its configuration with its weights."""
        detector = self.method.detector(self.found.config)
        detector.load_state_dict(dict(self.found.state))
        return detector

    @property
    def card(self) -> dict[str, Any]:
        """What a checkpoint made of it says of itself."""
        return {
            "source": f"{self.path.name}, a checkpoint of {self.found.program}",
            "entries": self.report,
            "licence": "that of its authors, who publish it",
        }

    @property
    def report(self) -> str:
        """How many entries found a place, and which did not."""
        left = ", ".join(sorted(self.found.ignored))
        return (
            f"{len(self.found.state)} entries placed, {len(self.found.ignored)} unused"
            + f" ({left})" * bool(left)
        )


def recognise(file: str | Path | WeightFile) -> ForeignCheckpoint | None:
    """The checkpoint of another program in a weight file; None where the file belongs to none that is known.

    Args:
        file: a path, or what `monolift.nn.pretrained.read_weights` gave.

    Raises InputError naming the file where it cannot be read, or is of a known program and incomplete.
    """
    from monolift.methods import get_method, method_names
    from monolift.nn.pretrained import WeightFile, read_weights

    read = file if isinstance(file, WeightFile) else read_weights(Path(file), LIKE)
    path, entries = read.path, read.entries
    for method in map(get_method, method_names()):
        try:
            found = method.released(entries) if method.released else None
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        if found is not None:
            return ForeignCheckpoint(path, method, found)
    return None


def read_foreign(path: str | Path) -> ForeignCheckpoint:
    """As `recognise`. Raises InputError where the file belongs to no program that is known."""
    found = recognise(path)
    if found is None:
        raise InputError(
            f"{path}: none of its entries has a name of a known program: expected a checkpoint of lzccccc/SMOKE or of "
            "MMDetection3D's SMOKE, or a checkpoint folder"
        )
    return found
