"""What MonoDR's fit finds on cars of known ground truth, and what it costs.

    python benchmarks/monodr.py [escape] [hidden] [scale] [tables] [masks] [boxes] [cost] [--objects 96] [--images 300]
        [--cars 5] [--out runs/monodr]

escape  yaw and overlap with the paper's constants, with and without trying other rotations; and of the default preset
hidden  the same with 35 % of each car behind something
scale   images of five cars, depth maps wrong by 1, 4 and 10 %: with and without calibrating the scale from the cars' sizes
tables  the paper's ablations of losses (table 2) and confidences (table 3), by the project's KITTI evaluator
masks   masks of five grades (in place of table 4's two networks): exact, on grids of 14 and 7 cells, eroded, dilated
boxes   2D boxes of which one side lies 10 or 25 % too far out (figure 5b), the paper's constants and the default
cost    process CPU seconds of one thread, by number of objects; the second half of the table is what five cars cost

Cars are of the procedural family, unseen in the decoder's training, on random patterns (``tests/monodr_cars.py``): figures
compare ways of fitting and say nothing about KITTI. The paper does not give its crops' size: ``--crop`` sets that of the paper
preset. Everything but cost is kept under ``--out`` in portions of about 16 objects: after a kill, or with larger numbers, it
resumes there. In "no depth" nothing of the depth map but the start is used.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import monolift
from monodr_cars import KnownCars, Noise, known_cars
from monolift.data.formats.kitti_format import from_numbers, write_atomically, write_labels
from monolift.geometry import Boxes3D, iou_bev_paired, wrap
from monolift.methods.fitter import OWN, Observation
from monolift.methods.monodr import MonoDR, MonoDRConfig, paper

PORTION = 16  # objects, about


@dataclass(frozen=True)
class Case:
    """A way of fitting some images: a row of a table."""

    name: str
    config: MonoDRConfig
    per_image: int = 1
    hidden: float = 0.0
    noise: Noise = field(default_factory=Noise)
    grade: str = "exact"
    """Of masks and boxes, see `graded`."""


@dataclass(frozen=True)
class Found:
    """N objects of a case: found and true boxes (N, 7: centre, size, yaw), image numbers, and what scores are made of."""

    found: np.ndarray
    start: np.ndarray
    truth: np.ndarray
    image: np.ndarray
    visible: np.ndarray
    boxes2d: np.ndarray
    score: np.ndarray
    silhouette: np.ndarray
    protrusion: np.ndarray

    def __len__(self) -> int:
        return len(self.found)


def portion(case: Case, number: int, folder: Path) -> dict[str, Any]:
    """The fit of one portion, from its file if it was done before with the same configuration."""
    path = folder / f"{case.name.replace(' ', '-').replace(',', '')}" / f"{number:03d}.json"
    told = {"config": asdict(case.config), "hidden": case.hidden, "noise": asdict(case.noise)}
    setting = json.loads(json.dumps(told if case.grade == "exact" else {**told, "grade": case.grade}))
    if path.exists():
        done = json.loads(path.read_text())
        if done["setting"] == setting:
            return done["rows"]
        raise SystemExit(f"{path} was made with another configuration: remove it or name another --out")
    images = images_of(case)
    cars = known_cars(images, per_image=case.per_image, seed=number, noise=case.noise, hidden=case.hidden)
    rows = measured(case, cars, number)
    rows["image"] = [p + images * number for p in rows["image"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({"setting": setting, "rows": rows}).encode())
    print(f"  {case.name}: portion {number}, {len(rows['score'])} objects", file=sys.stderr, flush=True)
    return rows


def images_of(case: Case) -> int:
    """Images in a portion."""
    return max(PORTION // case.per_image, 1)


def graded(observation: Observation, grade: str, draw: torch.Generator) -> Observation:
    """An observation as a worse 2D detector would give it. Where the mask changes, the 2D box is drawn round it, as panoptic
    segmentation does.

    grade: "exact"; "grid N": the mask on N x N cells of its box (Mask R-CNN: 28); "eroded P %", "dilated P %": the outline
    moved by a share of the box's height; "box +P %": a random side of the box moved outwards by a share of its extent
    """
    kind, _, amount = grade.partition(" ")
    if kind == "exact":
        return observation
    if kind == "box":
        side, box = int(torch.randint(4, (), generator=draw)), observation.box2d.clone()
        extent = float(box[2 + side % 2] - box[side % 2])
        box[side] += (1 if side > 1 else -1) * float(amount.strip("+ %")) / 100 * extent
        return replace(observation, box2d=box)
    x1, y1, x2, y2 = (round(v) for v in observation.box2d.tolist())
    own = (observation.mask == OWN).float()[None, None]
    if kind == "grid":
        cells = int(amount)
        window = own[..., max(y1, 0) : y2 + 1, max(x1, 0) : x2 + 1]
        coarse = F.adaptive_avg_pool2d(window, cells)
        fine = F.interpolate(coarse, window.shape[-2:], mode="bilinear", align_corners=False)
        own = torch.zeros_like(own)
        own[..., max(y1, 0) : y2 + 1, max(x1, 0) : x2 + 1] = (fine > 0.5).float()
    else:
        reach = max(round(float(amount.strip(" %")) / 100 * (y2 - y1)), 1)
        sign = 1 if kind == "dilated" else -1
        own = sign * F.max_pool2d(sign * own, 2 * reach + 1, 1, reach)
    mask = torch.where(own[0, 0] > 0.5, OWN, observation.mask.clamp_max(0)).to(torch.int8)
    rows, columns = (mask == OWN).nonzero(as_tuple=True)
    if not len(rows):
        return observation
    ends = [columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5]
    return replace(observation, mask=mask, box2d=torch.stack(ends).float())


def measured(case: Case, cars: KnownCars, seed: int) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(seed)
    observations = [graded(o, case.grade, draw) for o in cars.observations]
    fitted = MonoDR(case.config).fit(observations)

    def rows(boxes: Boxes3D) -> list[list[float]]:
        return torch.cat([boxes.center, boxes.size, boxes.yaw[:, None]], 1).tolist()

    return {
        "found": rows(fitted.boxes),
        "start": rows(fitted.start),
        "truth": rows(cars.boxes),
        "image": cars.image,
        "visible": cars.visible,
        "boxes2d": [o.box2d.tolist() for o in observations],
        "score": fitted.score2d.tolist(),
        "silhouette": fitted.residuals["silhouette"].tolist(),
        "protrusion": fitted.residuals["protrusion"].tolist(),
    }


def run(cases: list[Case], images: int, folder: Path) -> dict[str, Found]:
    """All portions of all cases; portion by portion, so that a run that is cut short compares like with like."""
    kept: dict[str, list[dict[str, Any]]] = {case.name: [] for case in cases}
    for number in range(-(-images // images_of(cases[0]))):
        for case in cases:
            kept[case.name].append(portion(case, number, folder))
    return {
        name: Found(**{k: np.array([v for p in portions for v in p[k]], float) for k in portions[0]})
        for name, portions in kept.items()
    }


# --- tables


def boxes_of(rows: np.ndarray) -> Boxes3D:
    t = torch.from_numpy(rows)
    return Boxes3D(t[:, :3], t[:, 3:6], t[:, 6])


def print_boxes(results: dict[str, Found]) -> None:
    print(
        f"{'':34s}{'objects':>8s}{'yaw<15':>8s}{'axis<15':>8s}{'BEV IoU':>9s}{'>0.5':>6s}{'>0.7':>6s}{'z error':>9s}"
    )
    for name, found in results.items():
        truth = boxes_of(found.truth)
        for label, rows in ((name, found.found), ("  its start", found.start)):
            boxes = boxes_of(rows)
            iou = iou_bev_paired(boxes, truth)
            yaw = wrap(boxes.yaw - truth.yaw).abs().rad2deg()
            axis = torch.minimum(yaw, 180 - yaw)
            far = ((boxes.center - truth.center)[:, 2] / truth.center[:, 2]).abs().median()
            shares = [(yaw < 15), (axis < 15)], [(iou > 0.5), (iou > 0.7)]
            yaws, overlaps = ([float(s.double().mean()) for s in part] for part in shares)
            print(
                f"{label:34s}{len(found):8d}{yaws[0]:8.2f}{yaws[1]:8.2f}{iou.mean():9.3f}"
                f"{overlaps[0]:6.2f}{overlaps[1]:6.2f}{far:9.2%}"
            )


def print_aps(results: dict[str, tuple[Found, np.ndarray]], folder: Path) -> None:
    """AP|R40 of the results with some scores, easy / moderate / hard."""
    print(
        f"{'AP|R40, easy / moderate / hard':34s}{'BEV 0.5':>22s}{'BEV 0.7':>22s}{'3D 0.5':>22s}{'3D 0.7':>22s}"
    )
    for name, (found, score) in results.items():
        write_corpus(found, score, folder)
        table = monolift.evaluate(labels=folder / "label_2", predictions=folder / "data")
        cells = []
        for metric in ("bev", "3d"):
            for mode in ("loose", "strict"):
                rows = [table.row(metric, "Car", d, mode) for d in ("easy", "moderate", "hard")]
                cells.append(" / ".join("-" if row is None else f"{row.ap_r40:.1f}" for row in rows))
        print(f"{name:34s}" + "".join(f"{cell:>22s}" for cell in cells))


def write_corpus(found: Found, score: np.ndarray, folder: Path) -> None:
    """KITTI files of ground truth and results. Occluded is 0 up to 10 % hidden, 1 up to 55 %, 2 above, as in `monolift synth`;
    objects that no detector would see are in neither. Files of a larger run that stood there are removed: the evaluator reads
    the whole folder."""
    for sub, boxes in (("label_2", found.truth), ("data", found.found)):
        for stale in (folder / sub).glob("*.txt"):
            stale.unlink()
        for image in range(int(found.image.max()) + 1):
            rows = np.nonzero(found.image == image)[0]
            x, y, z, length, height, width, yaw = boxes[rows].T
            numbers = np.column_stack(
                [
                    np.zeros(len(rows)),
                    np.digitize(1 - found.visible[rows], [0.10, 0.55]),
                    yaw - np.arctan2(x, z),
                    found.boxes2d[rows],
                    *(height, width, length, x, y + height / 2, z, yaw),
                ]
            )
            if sub == "data":
                numbers[:, :2] = -1
                numbers = np.column_stack([numbers, score[rows]])
            (folder / sub).mkdir(parents=True, exist_ok=True)
            write_labels(folder / sub / f"{image:06d}.txt", from_numbers(["Car"] * len(rows), numbers))


# --- parts


def escape(options: argparse.Namespace) -> None:
    published = paper(crop=options.crop)
    cases = [
        Case("paper", published),
        Case("paper, no escape", replace(published, escape_until=0)),
        Case("default", MonoDRConfig()),
    ]
    print_boxes(run(cases, options.objects, options.out / "escape"))


def hidden(options: argparse.Namespace) -> None:
    cases = [
        Case("default, 35 % hidden", MonoDRConfig(), hidden=0.35),
        Case("paper, 35 % hidden", paper(crop=options.crop), hidden=0.35),
    ]
    print_boxes(run(cases, options.objects, options.out / "hidden"))


def scale(options: argparse.Namespace) -> None:
    cases = []
    for off in (0.01, 0.04, 0.10):
        for name, config in (
            ("taken as it is", MonoDRConfig(scale_spread=0.0)),
            ("calibrated", MonoDRConfig()),
        ):
            cases.append(Case(f"scale off by {off:.0%}, {name}", config, per_image=5, noise=Noise(scale=off)))
    print_boxes(run(cases, -(-options.objects // 5), options.out / "scale"))


def loss_cases(full: MonoDRConfig, per_image: int) -> list[Case]:
    """The arms of table 2, and those its text speaks of: without silhouettes, 2D boxes, colours."""
    only_depth = {"pixel_weight": 0.0, "box_weight": 0.0, "silhouette_weight": 0.0, "size_weight": 0.0}
    changes: dict[str, dict[str, float]] = {
        "full": {},
        "no depth": {"depth_weight": 0.0, "escape_depth": 0.0, "scale_spread": 0.0},
        "depth only": only_depth,
        "no silhouette": {"silhouette_weight": 0.0},
        "no box": {"box_weight": 0.0},
        "no pixel": {"pixel_weight": 0.0},
    }
    return [
        Case(name, replace(full, **change), per_image=per_image, noise=Noise(scale=0.02))  # type: ignore[arg-type]
        for name, change in changes.items()
    ]


def tables(options: argparse.Namespace) -> None:
    full = MonoDRConfig() if options.preset == "default" else paper(crop=options.crop)
    cases = loss_cases(full, options.cars)
    folder = options.out / f"tables-{options.preset}"
    results = run(cases, options.images, folder)
    print_boxes(results)
    images = int(results["full"].image.max()) + 1
    print(f"\nTable 2, losses: {images} images, {len(results['full'])} cars")
    print_aps({name: (f, confidence(f)) for name, f in results.items()}, folder)
    found = results["full"]
    print("\nTable 3, confidences")
    rows = {
        "full": confidence(found),
        "no silhouette": confidence(found, silhouette=0),
        "no protrusion": confidence(found, protrusion=0),
        "2D score alone": found.score,
    }
    print_aps({name: (found, score) for name, score in rows.items()}, folder)


def confidence(found: Found, silhouette: float = 0.1, protrusion: float = 0.03) -> np.ndarray:
    """Eq. 8, with either exponent changed."""
    return found.score * np.exp(-silhouette * found.silhouette - protrusion * found.protrusion)


MASKS = ("exact", "grid 14", "grid 7", "eroded 6 %", "dilated 6 %")
BOXES = ("exact", "box +10 %", "box +25 %")


def masks(options: argparse.Namespace) -> None:
    full = MonoDRConfig() if options.preset == "default" else paper(crop=options.crop)
    cases = [Case(g, full, per_image=options.cars, noise=Noise(scale=0.02), grade=g) for g in MASKS]
    folder = options.out / f"masks-{options.preset}"
    results = run(cases, options.images, folder)
    print_boxes(results)
    print_aps({name: (found, confidence(found)) for name, found in results.items()}, folder)


def boxes(options: argparse.Namespace) -> None:
    cases = [
        Case(f"{name}, {grade}", config, grade=grade)
        for name, config in (("paper", paper(crop=options.crop)), ("default", MonoDRConfig()))
        for grade in BOXES
    ]
    print_boxes(run(cases, options.objects, options.out / "boxes"))


def cost(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    cars = known_cars(options.most)
    warm = replace(MonoDRConfig(), iterations=2, escape_until=1)
    MonoDR(warm).fit(cars.observations[:2])
    print(
        f"{'objects':>8s}{'default, s':>12s}{'s/object':>10s}{'5 cars':>8s}{'paper, s':>12s}{'s/object':>10s}{'5 cars':>8s}"
    )
    for count in [n for n in (1, 5, 16, 32, 64) if n <= options.most]:
        line = f"{count:8d}"
        for config in (MonoDRConfig(batch=count), paper(crop=options.crop, batch=count)):
            began = time.process_time()
            MonoDR(config).fit(cars.observations[:count])
            seconds = time.process_time() - began
            line += f"{seconds:12.1f}{seconds / count:10.2f}{5 * seconds / count:8.1f}"
        print(line, flush=True)


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "escape": escape, "hidden": hidden, "scale": scale, "tables": tables, "masks": masks, "boxes": boxes, "cost": cost,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--objects", type=int, default=96, help="cars of the parts escape, hidden and scale")
    parser.add_argument("--images", type=int, default=300, help="images of the parts tables and masks")
    parser.add_argument("--cars", type=int, default=5, help="in each of these images")
    parser.add_argument("--crop", type=int, default=128, help="pixels, of the paper preset")
    parser.add_argument(
        "--preset", choices=("default", "paper"), default="default", help="of the parts tables and masks"
    )
    parser.add_argument("--most", type=int, default=32, help="objects of the part cost")
    parser.add_argument("--out", type=Path, default=Path("runs/monodr"))
    options = parser.parse_args()
    for name in options.parts or PARTS:
        print(f"\n== {name}", flush=True)
        PARTS[name](options)


if __name__ == "__main__":
    main()
