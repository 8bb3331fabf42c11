"""``monolift convert-checkpoint``: the weights of another program as a checkpoint folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from monolift.files.folders import check_new


@dataclass(frozen=True)
class ConvertCheckpoint:
    """Import a checkpoint of lzccccc/SMOKE or of MMDetection3D's SMOKE.

    monolift convert-checkpoint model_final.pth smoke_official
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The file, .pth or .safetensors. Only tensors and plain values are read; nothing in it is run."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """The folder, new or empty."""
    half: bool = False
    """Weights as float16, half the size."""
    quiet: bool = False
    """No report."""


def run(options: ConvertCheckpoint) -> int:
    """Read, convert, write. Raises InputError for a file of no known program, or a folder that holds something."""
    check_new(options.out)
    from monolift.inference import checkpoint
    from monolift.inference.released import read_foreign

    foreign = read_foreign(options.file)
    detector = foreign.detector()
    checkpoint.save(options.out, detector, foreign.card, options.half, readme=True)
    if not options.quiet:
        sys.stderr.write(
            f"{options.file}: a {foreign.method.name} of {foreign.found.program}: {foreign.report}\n"
            f"{options.out}: classes {', '.join(detector.classes)}; monolift detect IMAGE --model {options.out}\n"
        )
    return 0
