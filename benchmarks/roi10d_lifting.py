"""ROI-10D's controlled experiment (fig. 7 of the paper): do ten numbers find their box by eq. 2 alone, and what moves when?

    python benchmarks/roi10d_lifting.py [--starts 1000] [--steps 3000] [--lr 0.02] [--seed 0] [--unit deviations]
        [--images docs/images]

Random boxes and random starts; no network, no image. With --images also the plot and the animation of the documentation.
--unit metres: the paper's unit of z, for which a rate of 0.2 is about right; deviations: standard deviations of 16.32 m, ours.
--sgd: the same with SGD. A minute or two of CPU time each.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from lifting_experiment import DEVIATIONS, KITTI, METRIC, PARTS, Descent, descend
from monolift.geometry import EDGES
from monolift.render.draw.canvas import INK, PAPER, Canvas

Color = tuple[int, int, int]
COLORS: dict[str, Color] = {
    "rotation": (0, 114, 178), "centroid": (0, 158, 115), "depth": (213, 94, 0), "extents": (204, 121, 167),
}  # fmt: skip
GREY, RED, BLUE = (205, 209, 214), (200, 40, 40), (0, 114, 178)
MARKS = (0, 50, 100, 300, 1000)
FIRST = 10  # step at the left edge of the plots
SMOOTHING = 9  # steps over which the plotted shares are averaged


def table(name: str, descent: Descent) -> None:
    errors = descent.errors
    steps = [k for k in MARKS if k < len(errors) - 1]
    mean = "  ".join(f"{k}: {float(errors[k].mean()):.3f}" for k in steps)
    end = errors[-1]
    print(f"{name}\n  mean corner error at step, metres   {mean}")
    print(
        f"  at the end   mean {float(end.mean()):.2e}  99 % {float(end.quantile(0.99)):.2e}  largest {float(end.max()):.2e}  "
        f"below 1e-3: {int((end < 1e-3).sum())} of {len(end)}"
    )
    for k in steps[:-1]:
        shares = zip(PARTS, descent.shares[k].tolist(), strict=True)
        print(f"  share of the gradient at step {k:4}   " + "  ".join(f"{n} {v:.2f}" for n, v in shares))


def _place(step: np.ndarray | int, steps: int) -> np.ndarray:
    """Of a step along a logarithmic axis from FIRST to the end, 0 to 1."""
    return np.log(np.maximum(step, FIRST) / FIRST) / np.log(steps / FIRST)


def plot(descent: Descent) -> Image.Image:
    """Left: errors over steps, both logarithmic. Right: shares of the gradient, stacked."""
    canvas = Canvas(Image.new("RGB", (960, 330), PAPER))
    steps = len(descent.shares)
    left, right = (70.0, 30.0, 450.0, 280.0), (540.0, 30.0, 930.0, 280.0)
    errors = descent.errors.clamp_min(1e-7).log10()

    def at(area: tuple[float, float, float, float], x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x1, y1, x2, y2 = area
        return np.stack([x1 + x * (x2 - x1), y2 - y * (y2 - y1)], 1)

    for area, title in ((left, "mean corner distance, metres"), (right, "share of the gradient")):
        frame = at(area, np.array([0, 1, 1, 0, 0.0]), np.array([0, 0, 1, 1, 0.0]))
        canvas.line(frame, GREY)
        canvas.text((area[0], area[1] - 8), title, 14, INK, "ls")
        for tick in (10, 30, 100, 300, 1000, 3000):
            if tick <= steps:
                x = area[0] + float(_place(tick, steps)) * (area[2] - area[0])
                canvas.text((x, area[3] + 8), f"{tick}", 12, INK, "ma")
        canvas.text(((area[0] + area[2]) / 2, area[3] + 26), "step", 12, INK, "ma")
    along = _place(np.arange(len(errors)), steps)
    for power in range(-6, 3, 2):
        y = (power + 7) / 9
        canvas.line(at(left, np.array([0, 1.0]), np.array([y, y])), GREY)
        canvas.text((left[0] - 8, left[3] - y * 250), f"1e{power}", 12, INK, "rm")
    for values, color, name, row in (
        (errors.quantile(0.99, dim=1), RED, "99 % of the starts below", 0),
        (descent.errors.mean(1).clamp_min(1e-7).log10(), BLUE, "mean", 1),
    ):
        canvas.line(at(left, along, (values.numpy() + 7) / 9), color, 1.8)
        y = left[3] - 40 + 18 * row
        canvas.line(np.array([[left[0] + 14, y], [left[0] + 39, y]]), color, 2.5)
        canvas.text((left[0] + 46, y), name, 12, INK, "lm")
    kernel = torch.ones(1, 1, SMOOTHING) / SMOOTHING
    padded = torch.nn.functional.pad(
        descent.shares.float().T[:, None], (SMOOTHING // 2,) * 2, mode="replicate"
    )
    shares = torch.nn.functional.conv1d(padded, kernel)[:, 0].T.numpy()
    shares = shares / shares.sum(1, keepdims=True)
    base = np.zeros(steps)
    along = _place(np.arange(steps), steps)
    for k, name in sorted(enumerate(PARTS), key=lambda pair: pair[1] != "depth"):
        top = base + shares[:, k]
        outline = np.concatenate([at(right, along, base), at(right, along, top)[::-1]])
        canvas.polygon(outline, COLORS[name], 0.8)
        middle = min(FIRST + 10, steps - 1)
        middle += int(shares[middle : steps // 2, k].argmax())  # where it is widest
        if shares[middle, k] > 0.06:
            y = right[3] - (base[middle] + top[middle]) / 2 * 250
            canvas.text((right[0] + 390 * float(along[middle]), y), name, 13, (255, 255, 255), "mm")
        base = top
    return canvas.finish()


def frame(descent: Descent, step: int) -> Image.Image:
    """One region on its way: in the image, from above, and what the gradient is made of."""
    width, height = 620, 187
    canvas = Canvas(Image.new("RGB", (width, height + 215), PAPER))
    camera = KITTI.after_scale(0.5)
    canvas.line(np.array([[0, height], [width, height]], float), GREY)
    x1, y1, x2, y2 = ((descent.roi[0] + 0.5) * 0.5 - 0.5).tolist()
    canvas.line(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]]), (150, 150, 150), 1.5, dash=4)
    here = descent.way[step].corners()[0]
    goal = descent.target.corners()[0]
    for corners, color in ((goal, RED), (here, BLUE)):
        pixels = camera.px_from_cam(corners).numpy()
        if bool((corners[:, 2] > 0.5).all()):
            for a, b in EDGES:
                canvas.line(pixels[[a, b]], color, 1.6)
    canvas.text((8, 8), f"step {step}   mean corner distance {float(descent.errors[step, 0]):.3f} m", 14, INK)
    canvas.text((width - 8, 8), "red: labelled, blue: predicted", 13, INK, "ra")
    center, scale = np.array([170.0, height + 195.0]), 3.6  # from above: 3.6 pixels per metre
    for metres in (10, 20, 30, 40, 50):
        y = center[1] - metres * scale
        canvas.line(np.array([[20, y], [320, y]]), GREY)
        canvas.text((324, y), f"{metres} m", 11, INK, "lm")
    canvas.polygon(center + np.array([[0, 0], [-5, 10], [5, 10]], float), INK)
    for corners, color in ((goal, RED), (here, BLUE)):
        ground = corners[[0, 1, 2, 3, 0]][:, [0, 2]].numpy() * [scale, -scale] + center
        if bool((corners[:, 2] > 0).all()):
            canvas.line(ground, color, 2.0)
    canvas.text((390, height + 30), "share of the gradient", 13, INK)
    shares = descent.shares[max(0, step - SMOOTHING // 2) : step + SMOOTHING // 2 + 1].mean(0).tolist()
    for row, (name, share) in enumerate(zip(PARTS, shares, strict=True)):
        y = height + 62 + 32 * row
        canvas.text((466, y + 9), name, 13, INK, "rm")
        bar = np.array([[474, y], [474 + 120 * share, y], [474 + 120 * share, y + 18], [474, y + 18]])
        canvas.polygon(bar, COLORS[name])
    return canvas.finish()


def animation(descent: Descent, path: Path) -> None:
    last = len(descent.way) - 1
    steps = sorted({round(float(k)) for k in np.geomspace(1, min(700, last), 36)} | {0})
    images = [frame(descent, k).quantize(24, dither=Image.Dither.NONE) for k in steps]
    times = [900] + [110] * (len(images) - 2) + [2500]
    images[0].save(path, save_all=True, append_images=images[1:], duration=times, loop=0, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unit", choices=("metres", "deviations"), default="deviations")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--sgd", action="store_true", help="also with SGD, momentum 0.9 and rate 1e-3")
    options = parser.parse_args()
    unit = {"metres": METRIC, "deviations": DEVIATIONS}[options.unit]
    descent = descend(options.starts, options.steps, options.lr, options.seed, unit=unit)
    table(
        f"z in {options.unit}, Adam {options.lr:g}, cosine to 0, {options.steps} steps, {options.starts} starts",
        descent,
    )
    if options.images is not None:
        plot(descent).save(options.images / "roi10d_lifting.png")
        animation(descent, options.images / "roi10d_lifting.gif")
    if options.sgd:
        table(
            "SGD 1e-3, momentum 0.9", descend(options.starts, options.steps, 1e-3, options.seed, "sgd", unit)
        )


if __name__ == "__main__":
    main()
