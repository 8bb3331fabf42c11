"""One training in a process of its own, which tests can kill: train_script.py OUT DATA [key=value ...] [--resume]."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import torch

from monolift.training.train import Step
from trained import train_with

if __name__ == "__main__":
    torch.set_num_threads(1)  # the same sums in the same order
    out, data, *settings = (a for a in sys.argv[1:] if not a.startswith("--"))
    steps: list[Step] = []

    def on_step(step: Step) -> None:
        steps[:] = [step]
        if "--slow" in sys.argv:  # so that a kill finds it in the middle of an epoch
            time.sleep(0.2)

    workers = next((int(a.partition("=")[2]) for a in sys.argv if a.startswith("--workers=")), 0)
    train_with(
        "smoke", data, Path(out), settings, val_every=100, save_minutes=0.0,  # after every step
        resume="--resume" in sys.argv, workers=workers, on_step=on_step,
    )  # fmt: skip
    if "--hash" in sys.argv:  # what each process of a distributed training ends with
        weights = b"".join(p.detach().numpy().tobytes() for p in steps[0].detector.parameters())
        (Path(out) / f"hash{os.environ.get('RANK', 0)}").write_text(hashlib.sha256(weights).hexdigest())
