"""What pasted cars are worth on real images: the same detector, budget and seeds, with and without ROI-10D's augmentation.

    python benchmarks/paste.py KITTI --split train.txt --val-split val.txt --masks masks --out runs/paste
        [--method smoke] [--paste 0.5] [--seeds 2] [--set epochs=30] [--set key=value ...] [--init PATH]

Both arms train with ``monolift train`` on the same images for equally many steps from the same weights and are scored on the
validation split: Car, AP R40 in percent, mean over the seeds and half the range between them. Runs that are there already are
not run again, and one that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from monolift.evaluation.table import evaluate
from monolift.methods import get_method
from monolift.training.options import choose
from monolift.training.train import train

METRICS = (("bbox", "strict"), ("bev", "loose"), ("bev", "strict"), ("3d", "loose"), ("3d", "strict"))
LEVELS = ("easy", "moderate", "hard")


def run(options: argparse.Namespace, arm: str, seed: int) -> dict[str, float]:
    """AP by "metric mode level" of the last epoch of one training; of its result files where it ran before."""
    out = options.out / f"{options.method}-{arm}-{seed}"
    if not (out / "complete.json").exists():
        print(f"{options.method}, {arm}, seed {seed}", flush=True)
        extra: tuple[str, ...] = ()
        if arm == "paste":
            extra = (f"augmentation.paste={options.paste:g}",)
            if options.masks is not None:
                extra += (f"augmentation.paste_masks={options.masks}",)
        chosen = choose(get_method(options.method), options.preset, settings=(*options.settings, *extra))
        train(
            chosen.config,
            chosen.recipe,
            options.data,
            out,
            keep=chosen.keep,
            measure=chosen.measure,
            split=options.split,
            val_split=options.val_split,
            init=options.init,
            seed=seed,
            device=options.device,
            workers=options.workers,
            val_every=10_000,  # the last epoch only
            resume=(out / "last").exists() or (out / "last.old").exists(),
            quiet=options.quiet,
        )
        labels = next(
            f for f in (options.data / "label_2", options.data / "training" / "label_2") if f.is_dir()
        )
        table = evaluate(labels=labels, predictions=out / "val", split=options.val_split)
        scores = {}
        for metric, mode in METRICS:
            for level in LEVELS:
                row = table.row(metric, "Car", level, mode)
                scores[f"{metric} {mode} {level}"] = 0.0 if row is None else row.ap_r40
        (out / "complete.json").write_text(json.dumps(scores, indent=1))
    return json.loads((out / "complete.json").read_text())


def table(found: dict[str, Sequence[dict[str, float]]]) -> str:
    """Arms as columns, so that their difference stands beside each other."""
    lines = [f"{'Car, AP R40':<22}" + "".join(f"{f'{arm} ({len(runs)})':>18}" for arm, runs in found.items())]
    for metric, mode in METRICS:
        for level in LEVELS:
            cells = []
            for runs in found.values():
                values = [one[f"{metric} {mode} {level}"] for one in runs]
                mean, half = sum(values) / len(values), (max(values) - min(values)) / 2
                cells.append(f"{mean:10.2f} ± {half:5.2f}")
            lines.append(f"{f'{metric} {mode} {level}':<22}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--val-split", type=Path, required=True)
    parser.add_argument("--masks", type=Path, help="folder of masks to cut out with")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="smoke")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--paste", type=float, default=0.5, help="share of the images that get cars")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="settings", help="as in monolift train")
    parser.add_argument("--init", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):  # so that a run that is stopped has compared both
        for arm in ("plain", "paste"):
            found.setdefault(arm, []).append(run(options, arm, seed))
            print(table(found), flush=True)


if __name__ == "__main__":
    main()
