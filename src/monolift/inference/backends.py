"""Which program computes the network: torch, or ONNX Runtime or OpenVINO with an exported file. Needs no torch.

The exported file of a checkpoint is written once, into a folder of the user's (``cache_folder``), under a name that holds its
weights' digest. It agrees with torch within ``monolift.export.TOLERANCE``; torch alone is exact.
"""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path

from monolift.errors import InputError, MissingExtraError
from monolift.inference.checkpoint import CONFIG_FILE, WEIGHTS_FILE

MODULES = {"onnx": "onnxruntime", "openvino": "openvino"}
"""The packages that compute an exported file, by backend."""
BACKENDS = ("auto", "torch", *MODULES)
FORMAT = 1  # of the files in the cache: another number for another exporter
WORTH_EXPORTING = 1000  # images: about where the seconds that export takes come back (benchmarks/detect.py)


def cache_folder() -> Path:
    """Where exported files are kept: $MONOLIFT_CACHE, else $XDG_CACHE_HOME/monolift, else ~/.cache/monolift."""
    if own := os.environ.get("MONOLIFT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "monolift"


def exported_file(checkpoint: Path) -> Path:
    """The file in the cache that belongs to a checkpoint folder, or a weight file, whether it is there or not.

    Raises:
        InputError: where the checkpoint cannot be read.
    """
    digest = hashlib.sha256(str(FORMAT).encode())
    files = [checkpoint / CONFIG_FILE, checkpoint / WEIGHTS_FILE] if checkpoint.is_dir() else [checkpoint]
    for file in files:
        try:
            digest.update(file.read_bytes())
        except OSError as error:
            raise InputError(f"{file}: cannot read: {error.strerror or type(error).__name__}") from None
    return cache_folder() / f"{checkpoint.resolve().name}-{digest.hexdigest()[:16]}.onnx"


def choose(backend: str, checkpoint: Path, device: str, images: int) -> str:
    """The backend for so many images on a device: "torch", "onnx" or "openvino".

    "auto" is ONNX Runtime on a CPU if it is installed and the exported file is there or worth writing, else torch. OpenVINO
    has to be named: it computes some networks faster, but starts more slowly and lacks deformable layers.
    Raises InputError for another name, and MissingExtraError for a package that is not installed.
    """
    if backend not in BACKENDS:
        raise InputError(f"--backend: expected {', '.join(BACKENDS)}, got {backend!r}")
    if backend != "auto":
        if backend in MODULES and not _installed(MODULES[backend]):
            raise MissingExtraError(f"--backend {backend}", backend)
        return backend
    if device.startswith("cuda") or not _installed(MODULES["onnx"]):
        return "torch"
    if exported_file(checkpoint).is_file():
        return "onnx"
    writable = all(map(_installed, ("onnx", "onnxscript")))
    return "onnx" if writable and images >= WORTH_EXPORTING else "torch"


def _installed(module: str) -> bool:
    return find_spec(module) is not None
