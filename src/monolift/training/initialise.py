"""Initial weights of a training: a bundled model, a checkpoint, or a file of pretrained backbone weights.

Each reports what it took. A checkpoint that fills less than half is refused: a training that starts from random weights where
the user asked for trained ones looks like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from monolift.errors import InputError
from monolift.inference import checkpoint, zoo
from monolift.inference.released import LIKE, WEIGHT_SUFFIXES, ForeignCheckpoint, recognise
from monolift.methods.base import Detector
from monolift.nn.pretrained import WeightFile, read_weights
from monolift.typing import Tensor

LEAST_SHARE = 0.5
"""Share of the weights that a checkpoint fills, at least, unless the user accepts less."""
BACKBONE = "network.backbone."


def find_weights(name_or_path: str | Path) -> Path:
    """The checkpoint folder or weight file that ``init`` names. Raises InputError where there is none."""
    if str(name_or_path) in zoo.names():
        return zoo.resolve(name_or_path)
    path = Path(name_or_path)
    if path.name == checkpoint.WEIGHTS_FILE and (path.parent / checkpoint.CONFIG_FILE).is_file():
        path = path.parent
    if path.is_dir():
        checkpoint.read_config(path)
    elif not path.is_file():
        raise InputError(
            f"{path}: no such file or folder, nor a bundled model ({', '.join(zoo.names())}): expected one of these, a "
            f"checkpoint folder, or a file of weights (.onnx, {', '.join(WEIGHT_SUFFIXES)})"
        )
    elif path.suffix not in (".onnx", *WEIGHT_SUFFIXES):
        raise InputError(
            f"{path}: expected a checkpoint folder or a file of weights (.onnx, {', '.join(WEIGHT_SUFFIXES)}), got "
            f"{path.suffix or 'a file without suffix'}"
        )
    return path


def initialise(detector: Detector, path: Path, images: Callable[[], Tensor], partial: bool = False) -> str:
    """Load the weights that `find_weights` found; return what was taken, in a sentence.

    Args:
        detector: filled in place; untouched where this raises.
        path: a checkpoint folder, of another method too, of which every entry of the same name and shape is taken; the file
            of a checkpoint that another program wrote, which must fill everything; or a file that must fill the backbone.
        images: gives a few normalised training images (b, 3, h, w), which some files need to restore their norms.
        partial: accept a checkpoint that fills less than `LEAST_SHARE`.

    Returns:
        How many entries and which share of the weights came from the file; begins with "warning: " below `LEAST_SHARE`.

    Raises:
        InputError: where nothing fits, or less than `LEAST_SHARE` without ``partial``: of all weights for a checkpoint of
            the same method, of the backbone's for another method's.
    """
    if path.is_dir():
        return _from_checkpoint(detector, path, partial)
    file = (
        read_weights(path, LIKE) if path.suffix in WEIGHT_SUFFIXES else path
    )  # .onnx is the backbone's to read
    if isinstance(file, WeightFile) and (foreign := recognise(file)) is not None:
        return _from_foreign(detector, foreign)
    backbone = detector.backbone
    try:
        report = backbone.load_pretrained(file, images)
    except InputError as error:
        raise InputError(
            f"{error}. Else start from a checkpoint folder or a bundled model ({', '.join(zoo.names())})"
        ) from None
    count = len(report.loaded)
    left = f"; {len(report.ignored)} entries of the file not used" if report.ignored else ""
    return f"{path}: {count} of {len(backbone.state_dict())} entries of the backbone taken, in {report.naming} names{left}"


@dataclass(frozen=True)
class Taken:
    """What a checkpoint fills of a detector's weights; norms' statistics and counters are none.

    Attributes:
        filled: names of the weights that it fills
        sizes: number of values of every weight of the detector
    """

    filled: frozenset[str]
    sizes: Mapping[str, int]

    def share(self, prefix: str = "") -> float:
        """Share of the values of the weights whose names begin with ``prefix``; 0 where there are none."""
        total = sum(size for name, size in self.sizes.items() if name.startswith(prefix))
        return sum(self.sizes[name] for name in self.filled if name.startswith(prefix)) / max(total, 1)

    def missing(self) -> list[str]:
        """Names that the checkpoint does not fill."""
        return [name for name in self.sizes if name not in self.filled]


def _from_checkpoint(detector: Detector, path: Path, partial: bool) -> str:
    other = checkpoint.load(path)
    own, theirs = detector.state_dict(), other.state_dict()
    fitting = {k: v for k, v in theirs.items() if k in own and own[k].shape == v.shape}
    sizes = {name: weight.numel() for name, weight in detector.named_parameters()}
    taken = Taken(frozenset(sizes) & frozenset(fitting), sizes)
    part = "" if other.method == detector.method else BACKBONE
    share = taken.share(part)
    if share < LEAST_SHARE and (not partial or not taken.filled):
        raise InputError(_refusal(path, other, detector, taken, share, part))
    detector.load_state_dict({**own, **fitting})
    inner = [name for name in own if name.startswith(BACKBONE)]
    said = (
        f"{path}: {len(fitting)} of {len(own)} entries taken from this {other.method} checkpoint, "
        f"{sum(name in fitting for name in inner)} of {len(inner)} of the backbone: {taken.share():.0%} of the weights, "
        f"{taken.share(BACKBONE):.0%} of the backbone's"
    )
    missing = taken.missing()
    if missing:
        said += f"; {len(missing)} stay random ({_first(missing)})"
    return f"{'' if share >= LEAST_SHARE else 'warning: '}{said}"


def _from_foreign(detector: Detector, foreign: ForeignCheckpoint) -> str:
    """All weights of another program's checkpoint, or none: it has to be the same system and network."""
    path, program, own = foreign.path, foreign.found.program, detector.state_dict()
    if foreign.method.name != detector.method:
        raise InputError(
            f"{path}: a checkpoint of {program} is a {foreign.method.name}, expected a {detector.method}: train "
            f"{foreign.method.name} --preset official with it"
        )
    adapted = foreign.method.adapted
    state, told = adapted(foreign.found, detector.config) if adapted else (dict(foreign.found.state), [])
    misfits = [
        k for k in {**own, **state} if k not in own or k not in state or own[k].shape != state[k].shape
    ]
    if misfits:
        raise InputError(
            f"{path}: this checkpoint of {program} has the network of the preset official, and {len(misfits)} entries do not "
            f"fit this training's ({_first(misfits)}): train with --preset official"
        )
    detector.load_state_dict(state)
    said = [f"{path}: {len(state)} of {len(own)} entries taken from this checkpoint of {program}", *told]
    left = f"; {len(foreign.found.ignored)} entries of the file have no use ({_first(list(foreign.found.ignored))})"
    return ", ".join(said) + left * bool(foreign.found.ignored)


def _refusal(path: Path, other: Detector, detector: Detector, taken: Taken, share: float, part: str) -> str:
    what = "its backbone's weights" if part else "its weights"
    shapes = (other.config.backbone, detector.config.backbone)
    why = (
        f"it has the backbone {shapes[0]}, this training {shapes[1]}"
        if shapes[0] != shapes[1]
        else f"names or shapes differ ({_first(taken.missing())})"
    )
    advice = (
        "start from a checkpoint of the same preset and settings, or accept the share with --init-partial "
        "(init_partial=True)"
        if taken.filled
        else "start from a checkpoint of the same preset and settings"
    )
    return (
        f"{path}: this {other.method} checkpoint fills {share:.0%} of {what}, expected at least {LEAST_SHARE:.0%}: {why}: "
        f"{advice}"
    )


def _first(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
