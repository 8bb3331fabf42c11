"""What `monolift evaluate` costs: CPU time by stage, growth with the number of images, ratio to another evaluator.

    python benchmarks/evaluator.py                                   # a random corpus made here
    python benchmarks/evaluator.py --corpus n3769_s7 --reference ref_eval.py

--corpus is a folder with label_2, pred and list.txt; --reference a script that is called with `--corpus FOLDER`. All times are
CPU seconds (user + system) of this machine on one thread; strict and loose tables together.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from monolift.evaluation.ap import average_precision
from monolift.evaluation.load import Truth, load
from monolift.evaluation.notes import remarks
from monolift.evaluation.protocol import LOOSE, STRICT
from monolift.evaluation.table import Evaluation

FACTORS = (1, 4, 16)


def make_corpus(folder: Path, images: int, seed: int = 0) -> Path:
    """About 6 labels and 5 detections an image, scattered like KITTI's cars, pedestrians and cyclists."""
    rng = np.random.default_rng(seed)
    names, sizes = ("Car", "Pedestrian", "Cyclist"), ((1.5, 1.6, 3.9), (1.8, 0.7, 0.9), (1.7, 0.6, 1.8))
    for part in ("label_2", "pred"):
        (folder / part).mkdir(parents=True)
    for i in range(images):
        labels, found = [], []
        for _ in range(rng.poisson(6.5)):
            c = int(rng.choice(3, p=(0.8, 0.14, 0.06)))
            z = rng.uniform(5, 60)
            x, yaw = rng.uniform(-0.6, 0.6) * z, rng.uniform(-3, 3)
            height = 720 * sizes[c][0] / z
            left, top = 609 + 720 * x / z, 173 + 720 * 1.65 / z - height
            state = f"{rng.choice([0, 0.2]):.2f} {rng.integers(0, 4)}"

            def row(dz: float, dx: float, c: int = c, state: str = state, place: tuple[float, ...] = (left, top, height, x, z),
                    yaw: float = yaw) -> str:  # fmt: skip
                left, top, height, x, z = place
                hwl = " ".join(f"{s:.2f}" for s in sizes[c])
                box = f"{left + dx:.2f} {top:.2f} {left + dx + height:.2f} {top + height:.2f}"
                return f"{names[c]} {state} {yaw - np.arctan2(x, z):.2f} {box} {hwl} {x:.2f} 1.65 {z + dz:.2f} {yaw:.2f}"

            labels.append(row(0.0, 0.0))
            if rng.random() < 0.8:
                found.append(f"{row(0.04 * z * rng.normal(), 3 * rng.normal())} {rng.random():.4f}")
        (folder / "label_2" / f"{i:06d}.txt").write_text("".join(f"{r}\n" for r in labels))
        (folder / "pred" / f"{i:06d}.txt").write_text("".join(f"{r}\n" for r in found))
    (folder / "list.txt").write_text("".join(f"{i:06d}\n" for i in range(images)))
    return folder


def repeat(corpus: Path, folder: Path, factor: int) -> Path:
    """The corpus `factor` times over, under new ids; links instead of copies."""
    ids = (corpus / "list.txt").read_text().split()
    for part in ("label_2", "pred"):
        (folder / part).mkdir(parents=True)
        for k in range(factor):
            for i, name in enumerate(ids):
                os.link(
                    (corpus / part / f"{name}.txt").resolve(), folder / part / f"{k * len(ids) + i:07d}.txt"
                )
    (folder / "list.txt").write_text("".join(f"{i:07d}\n" for i in range(factor * len(ids))))
    return folder


class Stages:
    """CPU seconds of named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        before = time.process_time()
        yield
        self.seconds[name] = time.process_time() - before


def by_stage(corpus: Path) -> dict[str, float]:
    """The work of one evaluation, stage by stage, in this process."""
    clock = Stages()
    with clock.stage("read labels"):
        truth = Truth(corpus / "label_2", corpus / "list.txt")
    with clock.stage("read predictions"):
        loaded, notes = load(truth, corpus / "pred")
    with clock.stage("pair and overlap"):
        _ = loaded.pairs
    with clock.stage("match and sum, strict"):
        rows, matched = average_precision(loaded, {"strict": STRICT})
    with clock.stage("match and sum, loose"):
        more, _ = average_precision(loaded, {"loose": LOOSE})
    with clock.stage("remarks, table, JSON"):
        notes += remarks(loaded, rows)
        table = Evaluation("benchmark", None, len(truth.ids), (*rows, *more), tuple(notes), loaded, matched)
        _ = str(table), table.to_json()
    return clock.seconds


def whole_process(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak memory in MB of a command, start-up of the interpreter included."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed with exit code {child.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def best(repeats: int, run: Callable[[], Any]) -> Any:
    """The least of several runs: other work on the machine only adds."""
    results = [run() for _ in range(repeats)]
    return min(results, key=lambda r: sum(r.values()) if isinstance(r, dict) else r)


def evaluate_command(corpus: Path) -> list[str]:
    start = "import sys; from monolift.cli import main; sys.exit(main(sys.argv[1:]))"
    options = [
        "--labels",
        corpus / "label_2",
        "--predictions",
        corpus / "pred",
        "--split",
        corpus / "list.txt",
    ]
    return [sys.executable, "-c", start, "evaluate", *map(str, options), "--json", os.devnull]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, help="folder with label_2, pred and list.txt")
    parser.add_argument("--images", type=int, default=1000, help="size of the random corpus")
    parser.add_argument("--reference", type=Path, help="another evaluator, called with --corpus FOLDER")
    parser.add_argument("--repeats", type=int, default=3, help="the least of so many runs counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.corpus.parent if options.corpus else None) as scratch:
        base = options.corpus or make_corpus(Path(scratch) / "made", options.images)
        images = len((base / "list.txt").read_text().split())
        print(f"corpus: {base.name}, {images:,} images; CPU seconds, least of {options.repeats}")
        corpora = [base if f == 1 else repeat(base, Path(scratch) / f"times{f}", f) for f in FACTORS]
        repeats = [options.repeats if f < 16 else 1 for f in FACTORS]
        # Whole processes first: a child's peak memory is never reported below what this process held when it started it.
        if options.reference:
            theirs = whole_process([sys.executable, str(options.reference), "--corpus", str(base)])
        whole = [
            best(n, lambda corpus=corpus: whole_process(evaluate_command(corpus)))
            for corpus, n in zip(corpora, repeats, strict=True)
        ]
        stages = [
            best(n, lambda corpus=corpus: by_stage(corpus))
            for corpus, n in zip(corpora, repeats, strict=True)
        ]
    print(f"\n{'stage':<26}" + "".join(f"{f'{f}x':>10}" for f in FACTORS) + f"{'16x / 1x':>12}")
    lines = {name: [s[name] for s in stages] for name in stages[0]}
    lines["whole process"] = [cpu for cpu, _ in whole]
    for name, row in lines.items():
        print(f"{name:<26}" + "".join(f"{v:>10.3f}" for v in row) + f"{row[-1] / max(row[0], 1e-9):>12.1f}")
    print(f"{'peak memory, MB':<26}" + "".join(f"{memory:>10.0f}" for _, memory in whole))
    if options.reference:
        ratio = theirs[0] / whole[0][0]
        print(
            f"\n{options.reference.name}: {theirs[0]:.2f} CPU seconds, {theirs[1]:.0f} MB: {ratio:.1f} times as long"
        )


if __name__ == "__main__":
    main()
