"""SMOKE's steps on the bundled image, drawn: the heatmap, one object lifted, and the corner loss taken apart.

    python benchmarks/smoke_images.py --out docs/images

Prints the table of the eight numbers as well. Everything comes from the bundled model; needs matplotlib.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import FancyArrowPatch, Polygon, Rectangle

import monolift
from monolift.commands.demo import example
from monolift.data.sample import Objects
from monolift.geometry import Boxes3D, Camera, yaw_from_alpha
from monolift.methods.smoke import Smoke
from monolift.methods.smoke.assign import Targets
from monolift.methods.smoke.cells import STRIDE
from monolift.methods.smoke.loss import corner_losses
from monolift.nn.heatmap import find_peaks, gather
from monolift.render.draw.canvas import class_color
from monolift.render.draw.overlay import overlay
from monolift.typing import Tensor

TRUTH, FOUND, INK = "#1c2733", "#d1495b", "#1c2733"


@dataclass(frozen=True)
class Look:
    """What the network made of the image. raw: its maps; targets: what training would ask of them."""

    detector: Smoke
    image: Tensor
    camera: Camera
    raw: dict[str, Tensor]
    targets: Targets

    @property
    def heat(self) -> Tensor:
        """(K, h, w) scores of the keypoints."""
        return torch.sigmoid(self.raw["heatmap"])[0]


@torch.no_grad()
def look() -> Look:
    model = monolift.load("smoke", "cpu")
    detector: Any = model.detector
    sample = example()
    view = detector.view(*sample.size)
    seen = view.sample(sample)
    raw = detector(detector.normalise(seen.image)[None])
    return Look(detector, seen.image, seen.camera, raw, detector.encode([seen]))


def heatmaps(seen: Look, path: Path) -> None:
    """What the network answers above, what its labels ask for below; a colour per class, circles where it takes a peak."""
    figure, axes = plt.subplots(2, 1, figsize=(11.3, 7.1), layout="constrained")
    height, width = seen.image.shape[1:]
    for row, (heat, title) in enumerate(
        ((seen.heat, "what the network answers"), (seen.targets.heatmap[0], "what the labels ask for"))
    ):
        axes[row].imshow(_tinted(seen, heat), extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        axes[row].set_title(title, loc="left", color=INK)
        axes[row].axis("off")
    scores, labels, cells = find_peaks(seen.heat[None], 20)
    columns = seen.heat.shape[2]
    labelled: list[tuple[float, float]] = []
    for score, label, cell in zip(scores[0].tolist(), labels[0].tolist(), cells[0].tolist(), strict=True):
        if score < 0.2:
            continue
        x, y = STRIDE * (cell % columns), STRIDE * (cell // columns)
        color = _color(seen.detector.classes[label])
        axes[0].plot(x, y, "o", ms=9, mfc="none", mec="white", mew=1.4)
        if any(abs(x - u) < 32 and abs(y - v) < 16 for u, v in labelled):
            continue  # a number fewer reads better than two on top of each other
        labelled.append((x, y))
        axes[0].annotate(f"{score:.2f}", (x, y), (0, 11), textcoords="offset points", ha="center", fontsize=10,
                         color="black", bbox={"boxstyle": "round,pad=.2", "fc": color, "ec": "none"})  # fmt: skip
    _save(figure, path)


def _tinted(seen: Look, heat: Tensor) -> np.ndarray:
    """The greyed image with each class's heat in its colour."""
    grey = seen.image.float().mean(0).numpy() / 255
    image = np.repeat((0.25 + 0.6 * grey)[..., None], 3, 2)
    size = seen.image.shape[1:]
    # cell c is centred on pixel 4 c
    zoomed = torch.nn.functional.interpolate(heat[None], size, mode="nearest")[0].numpy()
    for k, name in enumerate(seen.detector.classes):
        share = (zoomed[k, ..., None] / 0.6).clip(0, 1)  # full colour from 0.6 on
        image = (1 - share) * image + share * np.array(_color(name))
    return image


def lifting(seen: Look, path: Path, k: int) -> tuple[Tensor, Boxes3D]:
    """The detection of labelled object k: its cell and offset on the image, its depth and heading from above."""
    cell = _best_peak(seen, k)
    numbers, box = _read(seen, k, cell)
    columns = seen.heat.shape[2]
    corner = tuple((c - 0.5) * STRIDE for c in (cell % columns, cell // columns))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11.3, 4.5), layout="constrained", width_ratios=(1.7, 1)
    )
    drawn = overlay(
        seen.image, seen.camera, Objects.named(box, [seen.detector.classes[int(seen.targets.label[k])]])
    )
    height, width = seen.image.shape[1:]
    left.imshow(drawn, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    x1, y1, x2, y2 = seen.targets.boxes2d[k].tolist()
    left.set_xlim(x1 - 22, x2 + 22)
    left.set_ylim(y2 + 12, y1 - 28)
    left.set_xticks(np.arange(math.floor(x1 / STRIDE) - 6, x2 / STRIDE + 6) * STRIDE - STRIDE / 2, minor=True)
    left.set_yticks(np.arange(math.floor(y1 / STRIDE) - 8, y2 / STRIDE + 4) * STRIDE - STRIDE / 2, minor=True)
    left.grid(which="minor", color="white", lw=0.4, alpha=0.35)
    left.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
    left.add_patch(Rectangle(corner, STRIDE, STRIDE, fc="#ffd166", ec="black", lw=1.2, zorder=5))
    point = seen.camera.px_from_cam(box.center)[0].tolist()
    left.plot(*point, "o", ms=7, color="black", mec="white", mew=1.4, zorder=6)
    for text, at, offset, color, ink in (
        ("cell of the peak", corner, (-70, -60), "#ffd166", "black"),
        ("cell + offset: the projected centre", point, (60, -84), "black", "white"),
    ):
        left.annotate(text, at, offset, textcoords="offset points", fontsize=11, ha="center", color=ink,
                      bbox={"boxstyle": "round,pad=.25", "fc": color, "ec": "none"},
                      arrowprops={"arrowstyle": "-", "color": color, "lw": 1.4})  # fmt: skip
    left.set_title("each square is a cell of the network's maps", loc="left", fontsize=11, color=INK)
    _from_above(right, seen, box, numbers)
    _save(figure, path)
    return numbers, box


def _best_peak(seen: Look, k: int) -> int:
    """Flat cell of the highest peak of the object's class inside its 2D box."""
    _, labels, cells = find_peaks(seen.heat[None], 50)
    columns = seen.heat.shape[2]
    x1, y1, x2, y2 = (seen.targets.boxes2d[k] / STRIDE).tolist()
    for label, cell in zip(labels[0].tolist(), cells[0].tolist(), strict=True):
        if label == int(seen.targets.label[k]) and x1 <= cell % columns <= x2 and y1 <= cell // columns <= y2:
            return int(cell)
    raise SystemExit(f"object {k} has no peak: choose another with --lifted")


def _from_above(axes: Any, seen: Look, box: Boxes3D, numbers: Tensor) -> None:
    config = seen.detector.config
    lens = float(seen.camera.fx) / config.focal
    mean, spread = config.depth_mean * lens, config.depth_std * lens
    x, _, z = box.center[0].tolist()
    far = 40.0
    axes.axhspan(mean - spread, min(mean + spread, far), color="#dfe7ee")
    axes.axhline(mean, color="#8496a8", lw=1)
    axes.text(19.5, mean + 0.6, "mean depth", color="#5c6b7a", fontsize=10, ha="right")
    axes.plot([0, x / z * far], [0, far], "--", color=FOUND, lw=1.2, label="ray of the keypoint")
    axes.annotate("", (x, z), (x, mean), arrowprops={"arrowstyle": "->", "color": FOUND, "lw": 1.8})
    axes.text(
        x - 0.8,
        22,
        f"{float(numbers[0]):+.2f}\ndeviations",
        color=FOUND,
        fontsize=11,
        ha="right",
        va="center",
    )
    axes.add_patch(Polygon(_footprint(box), fc="#9fd3f7", ec="#1b6fa8", lw=1.6))
    heading = np.array([math.cos(float(box.yaw)), -math.sin(float(box.yaw))])
    axes.add_patch(
        FancyArrowPatch(
            (x, z),
            tuple(np.array([x, z]) + 5 * heading),
            arrowstyle="->",
            mutation_scale=16,
            color="#1b6fa8",
            lw=1.8,
        )
    )
    axes.plot(0, 0, "^", ms=12, color=INK)
    axes.text(0.9, -0.6, "camera", color=INK, fontsize=10)
    axes.set_xlim(-12, 20)
    axes.set_ylim(-2.5, far)
    axes.set_aspect("equal")
    axes.set_xlabel("x, metres to the right")
    axes.set_ylabel("z, metres ahead")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")


def taken_apart(seen: Look, path: Path, k: int) -> dict[str, float]:
    """One object's box with all numbers of the network, and with one group of them and the labels of the others."""
    _, box = _read(seen, k, int(seen.targets.cell[k]))
    truth = seen.targets.boxes[k : k + 1]
    groups = {
        "orientation": Boxes3D(truth.center, truth.size, yaw_from_alpha(box.alpha, truth.center)),
        "size": Boxes3D(truth.center, box.size, truth.yaw),
        "location": Boxes3D(box.center, truth.size, truth.yaw),
    }
    at_keys = replace(
        seen.targets,
        near_object=torch.arange(len(seen.targets.boxes)),
        near_cell=seen.targets.cell,
        near_weight=torch.ones(len(seen.targets.boxes)),
    )
    all_numbers = gather(seen.raw["regression"], seen.targets.image, seen.targets.cell)
    losses = corner_losses(seen.detector.codec, all_numbers, at_keys, seen.heat.shape[2])
    errors = {name: float(losses[name][k]) for name in groups}
    whole = float((box.corners() - truth.corners()).abs().mean())
    figure, axes = plt.subplots(1, 4, figsize=(11.3, 3.9), layout="constrained", sharey=True)
    panels = [("all of it", box, whole), *((name, groups[name], errors[name]) for name in groups)]
    for ax, (name, one, error) in zip(axes, panels, strict=True):
        ax.add_patch(Polygon(_footprint(truth), fc="none", ec=TRUTH, lw=1.6, ls="--"))
        ax.add_patch(Polygon(_footprint(one), fc=(*mpl.colors.to_rgb(FOUND), 0.25), ec=FOUND, lw=1.8))
        for a, b in zip(_footprint(truth), _footprint(one), strict=True):
            ax.plot(*zip(a, b, strict=True), color=FOUND, lw=1)
            ax.plot(*b, "o", ms=4, color=FOUND)
        x, _, z = truth.center[0].tolist()
        ax.set_xlim(x - 2.6, x + 2.6)
        ax.set_ylim(z - 3.8, z + 3.8)
        ax.set_aspect("equal")
        ax.set_title(f"{name if ax is axes[0] else 'only its ' + name}\n{error:.2f} m", color=INK)
        ax.set_xlabel("x, m")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("z, m")
    _save(figure, path)
    return {"all": whole, **errors}


def _read(seen: Look, k: int, cell: int) -> tuple[Tensor, Boxes3D]:
    """The network's numbers at a cell, and the box they lift to as the class of labelled object k."""
    targets, at = seen.targets, torch.tensor([cell])
    numbers = gather(seen.raw["regression"], targets.image[k : k + 1], at)
    box = seen.detector.codec.decode(numbers, at, targets.label[k : k + 1], seen.camera, seen.heat.shape[2])
    return numbers[0], box


def _footprint(box: Boxes3D) -> np.ndarray:
    return box.corners()[0, :4][:, [0, 2]].numpy()


def _color(name: str) -> tuple[float, float, float]:
    r, g, b = class_color(name)
    return r / 255, g / 255, b / 255


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110, pil_kwargs={"quality": 88} if path.suffix == ".jpg" else {})
    plt.close(figure)


def table(seen: Look, numbers: Tensor, box: Boxes3D, truth: Boxes3D) -> str:
    """The numbers of one object, what they become, and the label, as rows of Markdown."""
    config = seen.detector.config
    z, f = float(box.center[0, 2]), float(seen.camera.fx)
    values = [f"{v:+.2f}" for v in numbers.tolist()]

    def metres(points: Tensor) -> str:
        return ", ".join(f"{v:.2f}" for v in points[0].tolist())

    rows = [
        ("`d_z`", values[0], f"{config.depth_mean:.1f} + {config.depth_std:.1f} d_z = {z:.1f} m"
         + (f", times {f / config.focal:.2f} for the focal length" if abs(f / config.focal - 1) > 0.005 else ""),
         f"{float(truth.center[0, 2]):.1f} m"),
        ("`d_x, d_y`", ", ".join(values[1:3]), f"centre {metres(box.center)} m", f"{metres(truth.center)} m"),
        ("`d_l, d_h, d_w`", ", ".join(values[3:6]), f"size {metres(box.size)} m", f"{metres(truth.size)} m"),
        ("`cos, -sin`", ", ".join(values[6:8]),
         f"alpha {math.degrees(float(box.alpha)):.0f}, yaw {math.degrees(float(box.yaw)):.0f} degrees",
         f"{math.degrees(float(truth.alpha)):.0f}, {math.degrees(float(truth.yaw)):.0f} degrees"),
    ]  # fmt: skip
    head = ["| number | the network's | becomes | label |", "|---|---|---|---|"]
    return "\n".join(head + ["| " + " | ".join(row) + " |" for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--lifted", type=int, default=0, help="labelled object that is lifted")
    parser.add_argument("--compared", type=int, default=2, help="labelled object whose loss is taken apart")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seen = look()
    with torch.no_grad():
        heatmaps(seen, options.out / "smoke_heatmap.jpg")
        numbers, box = lifting(seen, options.out / "smoke_lifting.jpg", options.lifted)
        errors = taken_apart(seen, options.out / "smoke_loss.png", options.compared)
    print(table(seen, numbers, box, seen.targets.boxes[options.lifted : options.lifted + 1]))
    print("mean corner error:", "  ".join(f"{name} {value:.2f} m" for name, value in errors.items()))


if __name__ == "__main__":
    main()
