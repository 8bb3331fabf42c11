"""One training in a process of its own, which tests can kill: train_script.py OUT DATA [key=value ...] [--resume]."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import torch

from monolift.training.train import TrainOptions, _Run, train

if __name__ == "__main__":
    torch.set_num_threads(1)  # the same sums in the same order
    out, data, *settings = (a for a in sys.argv[1:] if not a.startswith("--"))
    if "--slow" in sys.argv:  # so that a kill finds it in the middle of an epoch
        step = _Run._step

        def slow_step(self, *arguments):  # type: ignore[no-untyped-def]
            time.sleep(0.2)
            return step(self, *arguments)

        _Run._step = slow_step  # type: ignore[method-assign]
    if "--hash" in sys.argv:  # what each process of a distributed training ends with
        go = _Run.go

        def go_and_tell(self):  # type: ignore[no-untyped-def]
            go(self)
            weights = b"".join(p.detach().numpy().tobytes() for p in self.detector.parameters())
            (Path(out) / f"hash{os.environ.get('RANK', 0)}").write_text(hashlib.sha256(weights).hexdigest())

        _Run.go = go_and_tell  # type: ignore[method-assign]
    train(
        TrainOptions(
            method="smoke",
            data=(data,),
            out=out,
            settings=tuple(settings),
            device="cpu",
            val_every=100,
            save_minutes=0.0,  # after every step
            resume="--resume" in sys.argv,
            quiet=True,
        )
    )
