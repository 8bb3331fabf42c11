"""Does the synthetic world help on real images? A detector trained on it alone, and as a start for real training.

    python benchmarks/realism.py KITTI --split train.txt --val-split val.txt --out runs/realism [--images 600] [--seeds 0 1]

For every seed three trainings with `monolift train`, scored on the real validation images with the weights of the last epoch
(nothing is chosen by the score):

- synthetic:   S epochs on synthetic images only;
- pretrained:  from there, R epochs on the real training images;
- real:        real images only, for as many steps as the two above together.

Synthetic images are made once in OUT/world with `monolift synth`. A run that was stopped goes on where it was when the same
command is given again; what is finished is not done twice. The table gives KITTI's AP R40 in percent, easy / moderate / hard.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from monolift.data.formats.kitti_format import read_split, write_atomically
from monolift.data.kitti import KittiDataset
from monolift.evaluation.table import evaluate
from monolift.inference import checkpoint
from monolift.training.validate import validate

ARMS = ("synthetic", "pretrained", "real")
METRICS = (
    ("bbox", "strict", "2D 0.7"),
    ("bev", "loose", "bird's eye 0.5"),
    ("3d", "loose", "3D 0.5"),
    ("3d", "strict", "3D 0.7"),
)
LEVELS = ("easy", "moderate", "hard")

Scores = dict[str, list[float]]


@dataclass(frozen=True)
class Experiment:
    """What all runs share."""

    real: Path
    split: Path
    val_split: Path
    out: Path
    method: str
    settings: tuple[str, ...]
    init: Path | None
    device: str
    synthetic_epochs: int
    real_epochs: int
    long_epochs: int

    def run_of(self, arm: str, seed: int) -> Path:
        return self.out / f"{arm}_{seed}"

    def command(self, arm: str, seed: int) -> list[str]:
        """The training of one arm; it goes on from its last epoch when there is one."""
        run = self.run_of(arm, seed)
        start = self.run_of("synthetic", seed) / "last" if arm == "pretrained" else self.init
        epochs = {
            "synthetic": self.synthetic_epochs,
            "pretrained": self.real_epochs,
            "real": self.long_epochs,
        }[arm]
        data = (
            [str(self.out / "world")] if arm == "synthetic" else [str(self.real), "--split", str(self.split)]
        )
        command = [sys.executable, "-m", "monolift", "train", self.method, "--data", *data, "--out", str(run)]
        command += ["--seed", str(seed), "--device", self.device, "--set", f"epochs={epochs}"]
        for setting in self.settings:
            command += ["--set", setting]
        if (run / "last").is_dir():
            return [*command, "--resume"]
        return command if start is None else [*command, "--init", str(start)]


def train_and_score(experiment: Experiment, arm: str, seed: int) -> Scores:
    """Train one arm unless it is there, and score its last weights; both are kept in the run's folder."""
    run = experiment.run_of(arm, seed)
    kept = run / "scores.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    print(f"{arm}, seed {seed}: training", flush=True)
    run_command(experiment.command(arm, seed))
    print(f"{arm}, seed {seed}: detecting", flush=True)
    scores = score(run / "last", experiment.real, experiment.val_split, run / "results", experiment.device)
    write_atomically(kept, json.dumps(scores, indent=1).encode())
    return scores


def score(weights: Path, real: Path, split: Path, out: Path, device: str) -> Scores:
    """Car AP R40, percent, [easy, moderate, hard] by the names of METRICS."""
    detector = checkpoint.load(weights).to("cuda" if device == "cuda" else "cpu").eval()
    dataset = KittiDataset(real, split)
    validate(detector, dataset, out)
    table = evaluate(labels=dataset.root / "label_2", predictions=out, split=split)
    scores = {}
    for metric, mode, name in METRICS:
        rows = [table.row(metric, "Car", level, mode) for level in LEVELS]
        scores[name] = [row.ap_r40 if row is not None else 0.0 for row in rows]
    return scores


def make_world(out: Path, images: int, size: tuple[int, int], workers: int) -> None:
    width, height = map(str, size)
    run_command(
        [sys.executable, "-m", "monolift", "synth", "--out", str(out), "--images", str(images), "--seed", "1000",
         "--width", width, "--height", height, "--workers", str(workers)]
    )  # fmt: skip


def run_command(command: list[str]) -> None:
    """Run it; when it fails it has said why, and the experiment ends."""
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)


def table(found: dict[tuple[str, int], Scores]) -> str:
    """A line per arm and seed; easy / moderate / hard."""
    head = f"{'Car AP R40, IoU':<22}" + "".join(f"{name:>24}" for *_, name in METRICS)
    lines = [head]
    for (arm, seed), scores in found.items():
        cells = (" / ".join(f"{v:.2f}" for v in scores[name]) for *_, name in METRICS)
        lines.append(f"{f'{arm}, seed {seed}':<22}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def pair(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("real", type=Path, help="KITTI folder")
    parser.add_argument("--split", type=Path, required=True, help="real training ids")
    parser.add_argument("--val-split", type=Path, required=True, help="real ids to score on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=600, help="synthetic images")
    parser.add_argument("--size", type=pair, default=(640, 192), help="of the synthetic images, 640x192")
    parser.add_argument(
        "--input", type=pair, default=(832, 256), help="training size of the network, 832x256"
    )
    parser.add_argument("--synthetic-epochs", type=int, default=10)
    parser.add_argument("--real-epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--method", default="smoke")
    parser.add_argument(
        "--init", type=Path, help="weights that all trainings begin with, as of monolift train"
    )
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--workers", type=int, default=1, help="processes that make the images")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args(None if arguments is None else list(arguments))


def main(arguments: Iterable[str] | None = None) -> None:
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    make_world(options.out / "world", options.images, options.size, options.workers)
    real_images = len(read_split(options.split))
    extra = round(
        options.synthetic_epochs * (options.images // options.batch) / max(real_images // options.batch, 1)
    )
    experiment = Experiment(
        real=options.real, split=options.split, val_split=options.val_split, out=options.out, method=options.method,
        settings=(f"batch_size={options.batch}", f"input_width={options.input[0]}", f"input_height={options.input[1]}",
                  *options.settings),
        init=options.init, device=options.device, synthetic_epochs=options.synthetic_epochs,
        real_epochs=options.real_epochs, long_epochs=options.real_epochs + extra,
    )  # fmt: skip
    per_epoch = options.images // options.batch, real_images // options.batch
    print(
        f"steps of {options.batch} images: synthetic {options.synthetic_epochs * per_epoch[0]}, pretrained "
        f"{options.real_epochs * per_epoch[1]} more, real {experiment.long_epochs * per_epoch[1]}", flush=True,
    )  # fmt: skip
    found: dict[tuple[str, int], Scores] = {}
    for seed in options.seeds:
        for arm in ARMS:
            found[arm, seed] = train_and_score(experiment, arm, seed)
            print(table(found), flush=True)
    if options.json:
        rows = [{"arm": arm, "seed": seed, **scores} for (arm, seed), scores in found.items()]
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
