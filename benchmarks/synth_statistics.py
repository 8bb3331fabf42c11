"""Is the synthetic world like KITTI? Histograms of labels, side by side, and how far they lie apart.

    python benchmarks/synth_statistics.py LABELS [--split FILE] [--images 300] [--seed 0] [--plot FILE.png] [--json FILE]

LABELS is KITTI's label_2; --split names the images to use (leave out those that were chosen for what is on them). The
synthetic labels are made on the spot, in a few tenths of a CPU second each. The distance between two histograms is the share of
one that has to move to make it the other (total variation): 0 equal, 1 nothing in common.

It also prints the limits of the hidden share that would give KITTI's shares of "fully visible" and "largely occluded", against
those in use.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monolift.data.formats.kitti_format import KittiLabels, read_labels, read_split
from monolift.world.labels import LARGELY, PARTLY
from monolift.world.synthetic import make_labels

FloatArray = npt.NDArray[np.floating]

DEGREES = np.degrees(np.pi)
BINS: dict[str, tuple[str, FloatArray]] = {
    "depth": ("z, metres", np.arange(0, 81, 5.0)),
    "sideways": ("x, metres", np.arange(-30, 31, 3.0)),
    "yaw": ("rotation_y, degrees", np.linspace(-DEGREES, DEGREES, 25)),
    "alpha": ("alpha, degrees", np.linspace(-DEGREES, DEGREES, 25)),
    "height": ("height of the 2D box, pixels", np.arange(10, 311, 15.0)),
    "truncation": ("truncated", np.array([0, 0.005, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])),
    "occlusion": ("occluded: visible, partly, largely", np.array([-0.5, 0.5, 1.5, 2.5])),
}


def gather(images: list[KittiLabels], name: str) -> dict[str, FloatArray]:
    """What the histograms count, over all objects of a class."""
    chosen = [labels.select([n == name for n in labels.names]) for labels in images]

    def column(field: str) -> FloatArray:
        return np.concatenate([np.asarray(getattr(labels, field), float) for labels in chosen])

    boxes, bottom = column("boxes2d"), column("bottom")
    return {
        "depth": bottom[:, 2],
        "sideways": bottom[:, 0],
        "yaw": np.degrees(column("rotation_y")),
        "alpha": np.degrees(column("alpha")),
        "height": boxes[:, 3] - boxes[:, 1],
        "truncation": column("truncation"),
        "occlusion": column("occlusion"),
    }


def fitting_limits(occlusion: FloatArray, hidden: FloatArray) -> tuple[float, float]:
    """The hidden shares that split the synthetic objects into visible, partly and largely as KITTI's labels do."""
    known = occlusion[occlusion <= 2]
    first, second = np.quantile(hidden, [(known <= 0).mean(), (known <= 1).mean()])
    return float(first), float(second)


def shares(values: FloatArray, bins: FloatArray) -> FloatArray:
    """Histogram that sums to 1; what lies beyond the last bins is counted into them."""
    inside = np.clip(values, bins[0], np.nextafter(bins[-1], -np.inf))
    return np.histogram(inside, bins)[0] / max(len(values), 1)


def apart(one: FloatArray, two: FloatArray) -> float:
    """Total variation between two histograms."""
    return float(np.abs(one - two).sum() / 2)


def compare(real: dict[str, FloatArray], made: dict[str, FloatArray]) -> dict[str, dict[str, float]]:
    table = {}
    for key, (_, bins) in BINS.items():
        ours, theirs = made[key], real[key]
        if key == "occlusion":  # 3, unknown, is never made
            theirs = theirs[theirs <= 2]
        table[key] = {
            "distance": apart(shares(theirs, bins), shares(ours, bins)),
            "kitti_mean": float(theirs.mean()),
            "synthetic_mean": float(ours.mean()),
        }
    return table


def plot(real: dict[str, FloatArray], made: dict[str, FloatArray], name: str, path: Path) -> None:
    """The histograms side by side; unknown occlusion stands with "largely"."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(13, 5.2), layout="constrained")
    for axis, (key, (label, bins)) in zip(axes.flat, BINS.items(), strict=False):
        places = np.arange(len(bins) - 1) if key == "truncation" else (bins[:-1] + bins[1:]) / 2
        width = 0.42 * (places[1] - places[0])
        axis.bar(places - width / 2, 100 * shares(real[key], bins), width, color="#5b7f95", label="KITTI")
        axis.bar(places + width / 2, 100 * shares(made[key], bins), width, color="#d9822b", label="synthetic")
        axis.set_xlabel(label)
        axis.set_ylabel(f"% of {name}s")
        axis.spines[["top", "right"]].set_visible(False)
        if key == "truncation":
            axis.set_xticks(places[::2], ["none", *(f"{b:g}" for b in bins[2:-1:2])])
            axis.set_yscale("log")
        if key == "occlusion":
            axis.set_xticks([0, 1, 2], ["visible", "partly", "largely"])
            axis.set_xlabel("occluded")
    axes.flat[-1].axis("off")
    axes.flat[-1].legend(*axes.flat[0].get_legend_handles_labels(), loc="center", frameon=False, fontsize=13)
    figure.savefig(path, dpi=75)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("labels", type=Path, help="KITTI's label_2")
    parser.add_argument("--split", type=Path, help="ids to use, one to a line")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--type", default="Car")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--plot", type=Path, help="histograms as an image; needs matplotlib")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    ids = read_split(options.split) if options.split else sorted(p.stem for p in options.labels.glob("*.txt"))
    real = gather([read_labels(options.labels / f"{i}.txt", scored=False) for i in ids], options.type)
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        found = list(
            pool.map(make_labels, [options.seed] * options.images, range(options.images), chunksize=10)
        )
    made = gather([f.labels for f in found], options.type)
    n_real, n_made = len(ids), len(found)
    counts = len(real["depth"]) / n_real, len(made["depth"]) / n_made
    print(
        f"{options.type}: KITTI {n_real} images, {counts[0]:.2f} each; synthetic {n_made}, {counts[1]:.2f} each"
    )
    print(f"{'':<14}{'distance':>9}{'KITTI mean':>13}{'synthetic mean':>17}")
    table = compare(real, made)
    for key, row in table.items():
        print(f"{key:<14}{row['distance']:>9.3f}{row['kitti_mean']:>13.2f}{row['synthetic_mean']:>17.2f}")
    hidden = np.concatenate([f.hidden[[n == options.type for n in f.labels.names]] for f in found])
    limits = fitting_limits(real["occlusion"], hidden)
    print(
        f"hidden shares that would give KITTI's degrees of occlusion: {limits[0]:.2f} and {limits[1]:.2f}; "
        f"in use: {PARTLY:.2f} and {LARGELY:.2f}"
    )
    if options.plot:
        plot(real, made, options.type, options.plot)
    if options.json:
        figures = {"images": [n_real, n_made], "per_image": counts, "compared": table, "limits": limits}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
