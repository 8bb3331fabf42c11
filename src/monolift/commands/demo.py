"""``monolift demo``: the bundled model on the sample image, beside its ground truth."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from monolift.commands.option import option
from monolift.commands.output import console, write_json
from monolift.errors import InputError
from monolift.inference import zoo as model_zoo

if TYPE_CHECKING:
    from monolift.data.sample import Sample
    from monolift.inference.results import Results3D

PAIR_METRES = 4.0  # maximum distance of the centres of a match

NEXT = """\
Next:
  monolift detect {image} --fov 81
  monolift detect --help     for your own image, and all options"""


@dataclass(frozen=True)
class Demo:
    """Run the bundled model on a sample image and compare with ground truth.

    monolift demo
    """

    model: str = "smoke"
    """Bundled model, as listed by `monolift models`, or checkpoint folder."""
    score: Annotated[float | None, option("NUMBER")] = None
    """Score threshold (default: the model's own, best F1 on its validation split)."""
    device: str = "auto"
    """Device: cpu, cuda or auto."""
    out: Path = Path("out/demo")
    """Output folder."""
    json: Annotated[str | None, option("FILE")] = None
    """Write detections and ground truth as JSON to FILE, or to standard output with "-"."""
    quiet: bool = False
    """Print no table."""


def run(options: Demo) -> int:
    from monolift.files.folders import write_atomically
    from monolift.files.images import write_image
    from monolift.inference.model import load
    from monolift.render.draw.overlay import draw_result
    from monolift.viewer import scene_html, scene_of

    sample = example()
    start = time.perf_counter()
    model = load(options.model, options.device)
    loaded = time.perf_counter() - start
    result = model.detect(sample.image, sample.camera, score=options.score)
    pairs = match(result, sample)
    drawn = options.out / "demo.png"
    write_image(drawn, draw_result(sample.image, sample.camera, result.objects, sample.objects), parents=True)
    result.save_kitti(options.out / "demo.txt")
    result.save_json(options.out / "demo.json")
    page = options.out / "demo.html"
    copy = options.out / "street.jpg"
    write_atomically(copy, example_file().read_bytes())
    write_atomically(page, scene_html([scene_of(result, sample)], "monolift demo"))
    if options.json is not None:
        write_json(options.json, {**result.to_dict(), "pairs": [pair.to_dict() for pair in pairs]})
    if not options.quiet:
        terminal = console(stderr=options.json == "-")
        terminal.print(_table(pairs), highlight=False)
        errors = [abs(p.found - p.true) for p in pairs if p.found is not None and p.true is not None]
        median = f", median distance error {statistics.median(errors):.2f} m" if errors else ""
        terminal.print(f"{len(errors)} of {len(sample)} objects found{median}", highlight=False)
        seconds = sum(result.timings.values())
        terminal.print(
            f"{model.name} loaded in {loaded:.1f} s, detected in {seconds:.2f} s on {model.device}",
            highlight=False,
        )
        terminal.print(
            f"image: {drawn} (white dashes: ground truth)\nin 3D: {page} (opens in any browser)\n\n"
            + NEXT.format(image=copy),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    return 0


def example() -> Sample:
    """The bundled image, a rendering, with its camera and true objects. Raises InputError where it is not installed."""
    from monolift.data.formats.kitti_format import read_labels
    from monolift.data.kitti import read_camera, sample_from_labels
    from monolift.data.sources import read_input_image

    folder = model_zoo.EXAMPLE
    read = read_input_image(example_file())
    camera = read_camera(folder / "calib.txt", read.image.shape[2], read.image.shape[1])
    return sample_from_labels(read.name, read.image, camera, read_labels(folder / "label.txt"))


def example_file() -> Path:
    """The file of the bundled image. Raises InputError where it is not installed."""
    file = model_zoo.EXAMPLE / "example.jpg"
    if not file.is_file():
        raise InputError(f"{file}: the example image is missing: this installation is incomplete")
    return file


@dataclass(frozen=True)
class Pair:
    """A detection, a ground-truth object, or a matched pair: ground distances in metres, heading error in radians."""

    name: str
    score: float | None = None
    found: float | None = None
    true: float | None = None
    apart: float | None = None
    turned: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "class": self.name, "score": self.score, "found_distance": self.found, "true_distance": self.true,
            "center_error": self.apart, "yaw_error": self.turned,
        }  # fmt: skip


def match(result: Results3D, truth: Sample) -> list[Pair]:
    """Match each detection, best first, to the nearest free ground-truth object, of its own class if there is one.

    In order of true distance. A van found as a car is such a pair too, named "Van as Car".
    """
    free, pairs = set(range(len(truth))), []
    unpaired = []
    for i, name in enumerate(result.classes):
        k = _nearest(result, i, truth, {k for k in free if truth.classes[k] == name})
        if k is None:
            unpaired.append(i)
        else:
            free.remove(k)
            pairs.append(_pair(result, i, truth, k))
    for i in unpaired:
        k = _nearest(result, i, truth, free)
        if k is None:
            pairs.append(Pair(result.classes[i], float(result.scores[i]), float(result.distance[i])))
        else:
            free.remove(k)
            pairs.append(_pair(result, i, truth, k))
    pairs += [Pair(truth.classes[k], true=_distance(truth, k)) for k in free]
    return sorted(pairs, key=lambda p: (p.true if p.true is not None else p.found) or 0.0)


def _nearest(result: Results3D, i: int, truth: Sample, among: set[int]) -> int | None:
    apart = {k: float((truth.boxes.center[k] - result.boxes.center[i]).norm()) for k in among}
    near = {k: metres for k, metres in apart.items() if metres <= PAIR_METRES}
    return min(near, key=lambda k: near[k], default=None)


def _pair(result: Results3D, i: int, truth: Sample, k: int) -> Pair:
    name, true_name = result.classes[i], truth.classes[k]
    return Pair(
        name=name if name == true_name else f"{true_name} as {name}",
        score=float(result.scores[i]),
        found=float(result.distance[i]),
        true=_distance(truth, k),
        apart=float((truth.boxes.center[k] - result.boxes.center[i]).norm()),
        turned=abs(math.remainder(float(result.boxes.yaw[i] - truth.boxes.yaw[k]), 2 * math.pi)),
    )


def _distance(truth: Sample, k: int) -> float:
    return float(truth.boxes.center[k, [0, 2]].norm())


def _table(pairs: list[Pair]) -> Any:
    from rich import box
    from rich.table import Table

    title = "detections and ground truth"
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False
    )
    for heading in ("class", "score", "found m", "true m", "error m", "center m", "heading deg"):
        table.add_column(
            heading, justify="left" if heading == "class" else "right", no_wrap=heading != "class"
        )
    for p in pairs:
        error = None if p.found is None or p.true is None else p.found - p.true
        remark = ", missed" if p.found is None else ", false" if p.true is None else ""
        turned = None if p.turned is None else math.degrees(p.turned)
        numbers = (
            _number(p.score, ".2f"),
            _number(p.found, ".1f"),
            _number(p.true, ".1f"),
            _number(error, "+.2f"),
        )
        table.add_row(p.name + remark, *numbers, _number(p.apart, ".2f"), _number(turned, ".0f"))
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
