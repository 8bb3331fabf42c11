"""`monolift detect` from file to result on this machine, beside what one would otherwise run: torch, ONNX Runtime, OpenVINO.

    python benchmarks/detect.py [--models smoke ss3d] [--sizes 640x192 1280x384] [--repeats 5] [--json FILE]
        [--scratch DIR] [--engines torch onnx openvino]

All arms take turns in one run, so that what else the machine does falls on all of them. Milliseconds are CPU time of this
process (``time.process_time``), which a busy machine changes less than the clock, as medians with the quarter and three-quarter
points; ratios are against torch in the same round. Exported files go to --scratch and are written where they are missing (a
minute of CPU time each).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from monolift import runtime
from monolift.data.cameras import CameraChoice
from monolift.data.sources import read_input_image
from monolift.export.backend import Exported
from monolift.export.graph import write_graph
from monolift.inference import zoo
from monolift.inference.backends import MODULES
from monolift.inference.model import Model, load
from monolift.inference.shots import Shot

Arms = dict[str, Callable[[], Any]]


def in_turn(arms: Arms, repeats: int) -> dict[str, list[float]]:
    """Seconds of CPU time of each arm in each round; a first round warms up and is not counted."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for round_ in range(repeats + 1):
        for name, work in arms.items():
            start = time.process_time()
            work()
            if round_:
                found[name].append(time.process_time() - start)
    return found


def summary(seconds: dict[str, list[float]], against: str) -> dict[str, dict[str, float]]:
    """Median milliseconds, quartiles, and the median ratio to an arm, round by round."""
    table = {}
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(values, seconds[against], strict=True)]
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
        table[name] = {
            "ms": round(1e3 * statistics.median(values), 1),
            "quartiles": [round(1e3 * low, 1), round(1e3 * high, 1)],
            "ratio": round(statistics.median(ratios), 3),
        }
    return table


def at_size(model: Model, width: int, height: int) -> Model:
    """The model with another network size, same weights."""
    config = replace(model.detector.config, input_width=width, input_height=height)
    other = type(model.detector)(config).eval()
    other.load_state_dict(model.detector.state_dict())
    return Model(other, model.name, model.card)


def engines(name: str, size: tuple[int, int], options: argparse.Namespace) -> dict[str, Any]:
    """From a file to its result with each engine at one network size, and the result's image."""
    model = at_size(load(name, "cpu"), *size)
    path, calib = zoo.EXAMPLE / "example.jpg", zoo.EXAMPLE / "calib.txt"
    models = {"torch": model}
    for engine in options.engines:
        if engine != "torch":
            file = options.scratch / f"{name}.onnx"  # of any size
            if not file.exists():
                write_graph(model, file)
            network = runtime.load(file, MODULES[engine], torch.get_num_threads())
            models[engine] = Model(Exported(model.detector, network), name, model.card, engine)
    arms: Arms = {engine: lambda one=one: one.detect(path, calib=calib) for engine, one in models.items()}
    result = model.detect(path, calib=calib)
    arms["image: draw and write PNG"] = lambda: result.save_image(options.scratch / "out.png")
    return summary(in_turn(arms, options.repeats), "torch")


def lists(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Eight equal images one by one, and in batches of 2, 4 and 8: CPU time for all eight."""
    model = load(name, "cpu")
    photo = read_input_image(zoo.EXAMPLE / "example.jpg")
    camera = CameraChoice.of(calib=zoo.EXAMPLE / "calib.txt").for_image("example", *photo.image.shape[:0:-1])
    shots = [Shot(photo, camera)] * 8
    arms: Arms = {f"batch {n}": lambda n=n: model.detect_known(shots, batch=n) for n in (1, 2, 4, 8)}
    return summary(in_turn(arms, max(1, options.repeats // 2)), "batch 1")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["smoke", "ss3d"])
    parser.add_argument("--sizes", nargs="+", default=["640x192", "1280x384"])
    parser.add_argument("--engines", nargs="+", default=["torch", "onnx", "openvino"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scratch", type=Path, default=Path("runs/detect"))
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    options.scratch.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for name in options.models:
        for size in options.sizes:
            width, height = map(int, size.split("x"))
            found[f"{name} {size}"] = engines(name, (width, height), options)
            print(f"{name} {size}", json.dumps(found[f"{name} {size}"]), flush=True)
        found[f"{name}, eight images"] = lists(name, options)
        print(f"{name}, eight images", json.dumps(found[f"{name}, eight images"]), flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    torch.set_num_threads(2)
    found = measure(options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
