"""What a training starts from: a bundled model, a checkpoint, or a file of pretrained backbone weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from monolift.errors import InputError
from monolift.inference import checkpoint, zoo
from monolift.methods.base import Detector
from monolift.typing import Tensor

WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin")


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
            f"checkpoint folder, or a file of backbone weights (.onnx, {', '.join(WEIGHT_FILES)})"
        )
    elif path.suffix not in (".onnx", *WEIGHT_FILES):
        raise InputError(
            f"{path}: expected a checkpoint folder or a file of backbone weights (.onnx, {', '.join(WEIGHT_FILES)}), got "
            f"{path.suffix or 'a file without suffix'}"
        )
    return path


def initialise(detector: Detector, path: Path, images: Callable[[], Tensor]) -> str:
    """Load the weights that `find_weights` found; returns what was taken, in a sentence.

    Of a checkpoint, of another method too, whatever fits is taken; a file must fill the backbone.
    images: gives a few normalised training images (b, 3, h, w), which some files need to restore their norms.
    Raises InputError where nothing fits, naming the files that would.
    """
    if path.is_dir():
        return _from_checkpoint(detector, path)
    backbone = detector.backbone
    try:
        report = backbone.load_pretrained(path, images)
    except InputError as error:
        raise InputError(
            f"{error}. Else start from a checkpoint folder or a bundled model ({', '.join(zoo.names())})"
        ) from None
    count = len(report.loaded)
    return f"{path}: {count} of {len(backbone.state_dict())} entries of the backbone taken, in {report.naming} names"


def _from_checkpoint(detector: Detector, path: Path) -> str:
    other = checkpoint.load(path)
    own = detector.state_dict()
    fitting = {k: v for k, v in other.state_dict().items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise InputError(
            f"{path}: no weight of this {other.method} checkpoint fits: it has the backbone {other.config.backbone}, this "
            f"training {detector.config.backbone}"
        )
    detector.load_state_dict({**own, **fitting})
    inner = [name for name in own if name.startswith("network.backbone.")]
    taken = sum(name in fitting for name in inner)
    share = f"{len(fitting)} of {len(own)} entries taken from this {other.method} checkpoint"
    return f"{'' if taken else 'warning: '}{path}: {share}, {taken} of {len(inner)} of the backbone"
