"""Loading published ImageNet weights, or our own, into a backbone: by name, completely, or not at all."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from monolift.errors import InputError
from monolift.typing import Tensor

_WRAPPERS = ("state_dict", "model")  # keys under which training scripts nest the weights
MOST_BYTES = 2_000_000_000
"""Of a weight file that is read; the largest of the methods here has 300 MB, three times that with its optimiser's state."""
_NUMBERS = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
}
_STATISTICS = re.compile(r"\.(running_mean|running_var|num_batches_tracked)$")
_COUNTER = ".num_batches_tracked"  # absent from old files, and only used by BatchNorm without momentum


@dataclass(frozen=True)
class ReleasedNames:
    """How a published checkpoint of the same architecture names its entries.

    Attributes:
        like: where such files come from, for messages
        renames: (pattern, replacement) for ``re.sub``, applied in turn, from the published name to ours
        unused: patterns of published names that a feature extractor has no use for
    """

    like: str
    renames: tuple[tuple[str, str], ...]
    unused: tuple[str, ...]

    def rename(self, name: str) -> str:
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name

    def is_unused(self, name: str) -> bool:
        return any(re.match(pattern, name) for pattern in self.unused)


@dataclass(frozen=True)
class LoadReport:
    """What loading pretrained weights did.

    Attributes:
        naming: whose names the file uses
        loaded: entries of the network that now hold the file's values
        ignored: entries of the file that were left out, in the file's names
    """

    path: Path
    naming: Literal["released", "monolift"]
    loaded: tuple[str, ...]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class WeightFile:
    """A weight file that has been read: several readers may look at its entries, none has to read it again."""

    path: Path
    entries: Mapping[str, Tensor]


class Published(nn.Module):
    """A network with published weights: ``released_names`` lists files and names."""

    released_names: ReleasedNames


def load_pretrained(network: Published, file: str | Path | WeightFile) -> LoadReport:
    """Fill ``network`` from a ``.safetensors`` file, or from tensors in a ``.pth``, ``.pt`` or ``.bin`` file.

    The latter are read without running anything they hold. Files in published names (``released_names``) and in our own
    load. Every weight must come from the file, in its shape, and the file may hold nothing unknown, so that a ResNet-34 file
    does not silently half-fill a ResNet-18. Left out by design: the classifier and whatever else ``unused`` lists.

    A network with GroupNorm takes the affine pair of the file's BatchNorm (scale and shift of the same
    channels) as its own and leaves the running statistics out. The activations then differ from the published
    network's; it is a start for training.

    Raises:
        InputError: naming the file, what was expected and what came.
    """
    names = network.released_names
    read = file if isinstance(file, WeightFile) else read_weights(Path(file), names.like)
    path, entries = read.path, read.entries
    own = network.state_dict()

    renamed = {name: names.rename(name) for name in entries}
    released = sum(name in own for name in renamed.values()) > sum(name in own for name in entries)
    if not released:
        renamed = {name: name for name in entries}

    unknown = sorted(name for name in entries if renamed[name] not in own)
    ignored = [name for name in unknown if _is_ignored(name, names, network)]
    found = {renamed[name]: value for name, value in entries.items() if renamed[name] in own}
    problem = _misfit(found, own, [name for name in unknown if name not in ignored])
    if problem:
        raise InputError(
            f"{path}: these weights do not fit {type(network).__name__}: {problem}. "
            f"Expected monolift's own names or those of {names.like}"
        )
    network.load_state_dict(found, strict=False)
    naming: Literal["released", "monolift"] = "released" if released else "monolift"
    return LoadReport(path, naming, tuple(sorted(found)), tuple(ignored))


def _is_ignored(name: str, names: ReleasedNames, network: nn.Module) -> bool:
    has_statistics = any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    return names.is_unused(name) or (not has_statistics and _STATISTICS.search(name) is not None)


def _misfit(found: Mapping[str, Tensor], own: Mapping[str, Tensor], unknown: list[str]) -> str:
    """What keeps the file from filling ``own``, or nothing. ``unknown``: its names that mean nothing to us."""
    missing = [name for name in own if name not in found and not name.endswith(_COUNTER)]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(own)} entries are missing (first: {missing[0]})")
    if unknown:
        problems.append(f"{len(unknown)} are unknown (first: {unknown[0]})")
    for name, value in found.items():
        if value.shape != own[name].shape:
            problems.append(f"{name} should be {tuple(own[name].shape)}, got {tuple(value.shape)}")
            break
    return ", ".join(problems)


def read_weights(path: Path, like: str) -> WeightFile:
    """A weight file with its entries, read as `read_entries` does and with its errors."""
    return WeightFile(path, read_entries(path, like))


def read_entries(path: Path, like: str) -> dict[str, Tensor]:
    """The tensors of a weight file by name; ``state_dict`` or ``model`` nesting and a ``module.`` prefix removed.

    Nothing in the file is run: a .pth, .pt or .bin file may hold tensors and plain values only.

    Args:
        like: where files that fit come from, for messages.

    Raises:
        InputError: for everything else, for a file of more than `MOST_BYTES`, and for a tensor that is not dense or not of
            plain numbers (sparse, quantised, complex, without storage).
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a weight file, found {'a folder' if path.is_dir() else 'none'}")
    if (size := _unpacked_bytes(path)) > MOST_BYTES:
        raise InputError(f"{path}: expected at most {MOST_BYTES:,} bytes of weights, got {size:,}")
    content: Any
    if path.suffix == ".safetensors":
        try:
            content = load_file(path)
        except (SafetensorError, ValueError, OSError) as error:
            raise InputError(f"{path}: expected a safetensors file, got {error}") from error
    elif path.suffix in (".pth", ".pt", ".bin"):
        content = _read_pytorch(path)
    else:
        raise InputError(
            f"{path}: expected .safetensors, .pth, .pt or .bin, got {path.suffix or 'no suffix'}. Files that fit are "
            f"monolift's own and {like}"
        )
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: expected named tensors, got {type(content).__name__}")
    entries = {
        str(name).removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }
    for name, value in entries.items():
        if value.layout is not torch.strided or value.is_meta or value.dtype not in _NUMBERS:
            kind = "without storage" if value.is_meta else f"{value.dtype}, {value.layout}"
            raise InputError(f"{path}: {name}: expected a dense tensor of plain numbers, got one {kind}")
    return entries


def _read_pytorch(path: Path) -> Any:
    """What a PyTorch file of tensors and plain values holds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign pickles and deprecated tensors, which are refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything
        raise InputError(
            f"{path}: expected a PyTorch file of plain tensors; this one is damaged or holds other objects, which are "
            "never unpickled"
        ) from error


def _unpacked_bytes(path: Path) -> int:
    """Size of the file with its records unpacked: those of PyTorch are a zip archive's."""
    try:
        with zipfile.ZipFile(path) as archive:
            return max(path.stat().st_size, sum(entry.file_size for entry in archive.infolist()))
    except (
        zipfile.BadZipFile,
        ValueError,
        OSError,
        NotImplementedError,
    ):  # files of PyTorch before 1.6 are none
        return path.stat().st_size
