"""ROI-10D's table 3 on synthetic streets: what the lifting loss, depth and pasted cars are worth.

    monolift synth --out world --images 400 --width 512 --height 160 --masks --depth
    python benchmarks/roi10d_ablation.py world --out runs/ablation [--train 300] [--epochs 12] [--seeds 3] [--only lifting,none]
        [--init PATH] [--set key=value ...]

Every variant trains from the same random weights (or --init), sees the same images in the same order, and is scored on the
images that are left: Car, moderate, AP R40 in percent, mean over the seeds and half the range between them. Runs that are
there already are not run again, and one that was stopped goes on.

    lifting    eq. 2 after a warm-up, extents by their own term, depth stream trained by the rendered depth
    eq2        the same, extents trained by eq. 2 too, as published
    none       separate terms, summed
    kendall    separate terms with learnt uncertainties
    nodepth    lifting, without depth stream
    syn        lifting, with cars pasted into half of the images

With --published every variant has the paper's choices besides (`PUBLISHED`): z in metres from the mean, uniform terms, the 2D
score alone, regions of the detector; "lifting" is then eq. 2 for all of a box, and "eq2" the same again. Without it they have
the default preset's, which favour separate terms (weighted by hand) and "nodepth" (depth counts from the region's height).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from monolift.data.formats.kitti_format import write_split
from monolift.data.kitti import KittiDataset
from monolift.methods import get_method
from monolift.training.options import choose
from monolift.training.train import train

VARIANTS: dict[str, tuple[str, ...]] = {
    "lifting": (),
    "eq2": ("lift_extents=true",),
    "none": ("weighting=none",),
    "kendall": ("weighting=kendall",),
    "nodepth": ("depth=none",),
    "syn": ("augmentation.paste=0.5",),
}
PUBLISHED = (
    "depth_start=metric",
    "term_weights=[1,1,1,1]",
    "confidence=false",
    "regions=detections",
    "lift_extents=true",
)
METRICS = ("car_bbox_0.7", "car_bev_0.5", "car_bev_0.7", "car_3d_0.5", "car_3d_0.7")


def run(options: argparse.Namespace, variant: str, seed: int) -> dict[str, float]:
    """Scores of one training; of the file where it ran before."""
    out = options.out / f"{variant}-{seed}"
    metrics = out / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    if not rows or rows[-1]["epoch"] < options.epochs:
        print(f"{variant}, seed {seed}", flush=True)
        chosen = choose(
            get_method("roi10d"),
            "default",
            settings=(
                f"epochs={options.epochs}",
                f"input_width={options.width}",
                f"input_height={options.height}",
                f"lr={options.lr:g}",
                "batch_size=4",
                f"warmup_steps={options.warmup_steps}",
                *(PUBLISHED if options.published else ()),
                *options.settings,
                *VARIANTS[variant],
            ),
        )
        train(
            chosen.config,
            chosen.recipe,
            options.data,
            out,
            keep=chosen.keep,
            measure=chosen.measure,
            split=options.out / "train.txt",
            val_split=options.out / "val.txt",
            init=options.init,
            seed=seed,
            device=options.device,
            val_every=options.epochs,
            resume=(out / "last").exists(),
            quiet=True,
        )  # fmt: skip
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return {name: float(rows[-1].get(name, 0.0)) for name in METRICS}


def table(found: dict[str, Sequence[dict[str, float]]]) -> str:
    lines = ["variant    seeds  " + "  ".join(f"{name:>13}" for name in METRICS)]
    for variant, runs in found.items():
        cells = []
        for name in METRICS:
            values = [one[name] for one in runs]
            mean, half = sum(values) / len(values), (max(values) - min(values)) / 2
            cells.append(f"{mean:6.2f} ± {half:4.2f}")
        lines.append(f"{variant:10} {len(runs):5}  " + "  ".join(cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=300, help="images to train on; the rest is scored")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--warmup-steps", type=int, default=150)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=160)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--published", action="store_true", help="the paper's choices in every variant")
    parser.add_argument("--init", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="settings", help="as in monolift train")
    parser.add_argument("--only", default=",".join(VARIANTS))
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    ids = KittiDataset(options.data).ids
    options.out.mkdir(parents=True, exist_ok=True)
    write_split(options.out / "train.txt", ids[: options.train])
    write_split(options.out / "val.txt", ids[options.train :])
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):  # so that a run that is stopped has compared all of them
        for variant in options.only.split(","):
            found.setdefault(variant, []).append(run(options, variant, seed))
            print(table(found), flush=True)


if __name__ == "__main__":
    main()
