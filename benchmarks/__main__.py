"""The figures of speed, as ratios to an alternative that takes turns in the same run; fails where one got worse.

    python -m benchmarks [--only NAME ...] [--repeats 5] [--json FILE] [--margin 0.35] [--record]

Prints each figure with the spread of its rounds, and compares its ratio with the last recorded one (benchmarks/recorded.json):
more than a share ``--margin`` above it is a failure, exit code 1. --record writes the ratios that were measured. A ratio of CPU
times (``time.process_time``) in one run depends little on the machine and on what else it does; milliseconds do.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.detect import Arms, in_turn, summary

RECORDED = Path(__file__).with_name("recorded.json")


def image_file() -> tuple[Arms, str]:
    """A result of the bundled example as PNG: drawing and writing, against detecting it."""
    from monolift.inference import zoo
    from monolift.inference.model import load

    model = load("smoke", "cpu")
    result = model.detect(zoo.EXAMPLE / "example.jpg", calib=zoo.EXAMPLE / "calib.txt")
    out = io.BytesIO()
    arms: Arms = {
        "detect": lambda: model.detect(zoo.EXAMPLE / "example.jpg", calib=zoo.EXAMPLE / "calib.txt"),
        "draw": result.plot,
        "write": lambda: result.plot().save(out, "PNG", compress_type=3, compress_level=1),
    }
    return arms, "detect"


def lists() -> tuple[Arms, str]:
    """Four equal images in one batch, against one by one."""
    from monolift.data.cameras import CameraChoice
    from monolift.data.sources import read_input_image
    from monolift.inference import zoo
    from monolift.inference.model import load
    from monolift.inference.shots import Shot

    model, photo = load("smoke", "cpu"), read_input_image(zoo.EXAMPLE / "example.jpg")
    height, width = photo.image.shape[1:]
    camera = CameraChoice.of(calib=zoo.EXAMPLE / "calib.txt").for_image("example", width, height)
    shots = [Shot(photo, camera)] * 4
    return {
        "one by one": lambda: model.detect_known(shots, batch=1),
        "batch 4": lambda: model.detect_known(shots, batch=4),
    }, "one by one"


def methods() -> tuple[Arms, str]:
    """The bundled models from file to result, against SMOKE."""
    from monolift.inference import zoo
    from monolift.inference.model import load

    path, calib = zoo.EXAMPLE / "example.jpg", zoo.EXAMPLE / "calib.txt"
    models = {name: load(name, "cpu") for name in ("smoke", "ss3d", "roi10d")}
    arms: Arms = {name: lambda one=one: one.detect(path, calib=calib) for name, one in models.items()}
    return arms, "smoke"


def deform() -> tuple[Arms, str]:
    """A deformable layer of 64 channels on 96 x 320 cells, against a plain convolution."""
    from monolift.nn.deform import DeformConv2d

    x = torch.randn(1, 64, 96, 320)
    layers = {"plain": torch.nn.Conv2d(64, 64, 3, padding=1), "deformable": DeformConv2d(64, 64)}

    def run(layer: torch.nn.Module) -> Any:
        with torch.inference_mode():
            return layer(x)

    return {name: lambda one=one: run(one) for name, one in layers.items()}, "plain"


def dla34() -> tuple[Arms, str]:
    """DLA-34 of a 1280 x 384 image, against itself with plain convolutions in place of the deformable ones."""
    from monolift.nn.backbones import build_backbone

    return {
        "plain": _forward(build_backbone("dla34", deformable=False)),
        "deformable": _forward(build_backbone("dla34")),
    }, "plain"


def dense_networks() -> tuple[Arms, str]:
    """Dense networks of a 640 x 192 image, against matrix products of as many multiply-adds, the machine's measured limit: of
    a ratio r the network reaches a share 1 / r of it."""
    from torch.utils.flop_counter import FlopCounterMode

    from monolift.nn.backbones import build_backbone

    side = 1024
    a, b = torch.randn(side, side), torch.randn(side, side)
    arms: Arms = {}
    network = _forward(build_backbone("dla34", deformable=False), 640, 192)
    with FlopCounterMode(display=False) as counter:
        network()
    products = max(1, round(counter.get_total_flops() / (2 * side**3)))
    arms[f"{products} matrix products"] = lambda: [torch.mm(a, b) for _ in range(products)]
    arms["dla34, plain"] = network
    return arms, f"{products} matrix products"


def _forward(network: torch.nn.Module, width: int = 1280, height: int = 384) -> Callable[[], Any]:
    network = network.eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, height, width).contiguous(memory_format=torch.channels_last)

    def run() -> Any:
        with torch.inference_mode():
            return network(x)

    return run


def ss3d_fit() -> tuple[Arms, str]:
    """A hundred boxes of SS3D fitted by numba's kernel (extra "fast"), as for detections, against tensor operations."""
    from monolift.methods.ss3d.decode import FIT_STEPS, FIT_TOLERANCE
    from monolift.methods.ss3d.fit import Engine, fit_boxes

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
    from noisy_cars import noisy_cars

    cars = noisy_cars(100)
    weights = 1 / cars.sigma
    engines: tuple[Engine, ...] = ("torch", "numba")
    return {
        engine: lambda engine=engine: fit_boxes(
            cars.parameters, weights, cars.camera, FIT_STEPS, FIT_TOLERANCE, engine=engine
        )
        for engine in engines
    }, "torch"


FIGURES: dict[str, Callable[[], tuple[Arms, str]]] = {
    "image file": image_file,
    "lists": lists,
    "methods": methods,
    "deformable convolution": deform,
    "dla34 1280x384": dla34,
    "dense networks": dense_networks,
    "ss3d fit": ss3d_fit,
}


def start_up(repeats: int) -> dict[str, dict[str, float]]:
    """CPU time of processes, against one that imports torch."""
    programs = {
        "import torch": ["-c", "import torch"],
        "monolift --help": ["-m", "monolift", "--help"],
        "monolift evaluate --help": ["-m", "monolift", "evaluate", "--help"],
        "load smoke": ["-c", "import monolift; monolift.load('smoke', 'cpu')"],
    }
    import resource

    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, arguments in programs.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return summary(seconds, "import torch")


def compare(found: dict[str, Any], recorded: dict[str, float], margin: float) -> list[str]:
    """The ratios that are more than ``margin`` worse than recorded, a line each."""
    worse = []
    for figure, table in found.items():
        for arm, row in table.items():
            last = recorded.get(f"{figure}: {arm}")
            if last is not None and row["ratio"] > last * (1 + margin):
                worse.append(f"{figure}: {arm}: ratio {row['ratio']:.3f}, recorded {last:.3f}")
    return worse


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=["start-up", *FIGURES])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--margin", type=float, default=0.35)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in options.only or ["start-up", *FIGURES]:
        if name == "start-up":
            found[name] = start_up(options.repeats)
        else:
            arms, against = FIGURES[name]()
            found[name] = summary(in_turn(arms, options.repeats), against)
        for arm, row in found[name].items():
            low, high = row["quartiles"]
            print(
                f"{name:24} {arm:26} {row['ms']:8.1f} ms ({low:.1f} to {high:.1f})  ratio {row['ratio']:.3f}",
                flush=True,
            )
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    worse = compare(found, recorded, options.margin)
    for line in worse:
        print(f"worse than recorded by more than {options.margin:.0%}: {line}", file=sys.stderr)
    if options.json:
        options.json.write_text(
            json.dumps({"figures": found, "worse": worse, "time": time.time()}, indent=1) + "\n"
        )
    if options.record:
        ratios = {
            f"{figure}: {arm}": row["ratio"] for figure, table in found.items() for arm, row in table.items()
        }
        RECORDED.write_text(json.dumps({**recorded, **ratios}, indent=1) + "\n")
    return 1 if worse and not options.record else 0


if __name__ == "__main__":
    sys.exit(main())
