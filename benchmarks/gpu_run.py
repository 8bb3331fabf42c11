"""One GPU, one call, at most twelve minutes: CUDA tests, a table of speeds, and a training against the clock.

    python benchmarks/gpu_run.py --out OUT [--data KITTI] [--minutes 12] [--method smoke] [--preset default] [--set KEY=VALUE]

Every part is written to OUT/table.json as soon as it is known, and a part that is there is not measured again: a call that
was cut off is repeated as it was and goes on. A part for which no time is left is "not measured". The training (cosine by the
clock) keeps its state in --scratch and leaves OUT/model, averaged weights in float16, where they are at most 16 MiB. Needs the
repository and torch, numpy, Pillow, safetensors; pytest for the tests.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from monolift.augment.augment import Augmenter
from monolift.data.kitti import KittiDataset
from monolift.geometry import Camera
from monolift.inference import checkpoint, zoo
from monolift.inference.model import load
from monolift.methods import get_method
from monolift.methods.base import Detector
from monolift.nn.deform import DeformConv2d
from monolift.render.mesh import Mesh, icosphere
from monolift.render.renderer import render
from monolift.training.data import Batch, Encoder, Loader, Views
from monolift.training.optimizer import Average, make_optimizer, set_rate
from monolift.training.options import choose
from monolift.training.processes import Processes

LARGEST = 16 * 2**20  # bytes of a file that is left
SHARE_OF_TRAINING = 0.6  # of the minutes
SAVE_SECONDS = 60.0


class Table:
    """What is known, on disk after every part."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def measure(self, name: str, work: Callable[[], Any], until: float) -> None:
        known = self.parts.get(name, "not measured")
        if known != "not measured" and not (isinstance(known, dict) and "error" in known):
            return
        if time.monotonic() > until:
            self.set(name, "not measured")
            return
        start = time.monotonic()
        try:
            self.set(name, work())
        except Exception as error:  # the other parts are still measured
            self.set(name, {"error": f"{type(error).__name__}: {error}"[:400]})
        print(f"{name}: {json.dumps(self.parts[name])[:300]}  ({time.monotonic() - start:.1f} s)", flush=True)

    def set(self, name: str, value: Any) -> None:
        self.parts[name] = value
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.parts, indent=1) + "\n")
        partial.replace(self.path)


def seconds(work: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median of one call; the device has finished."""
    found = []
    for k in range(repeats + 2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if k >= 2:  # the first ones choose algorithms
            found.append(time.perf_counter() - start)
    return statistics.median(found)


def run_tests(device: torch.device) -> dict[str, Any]:
    """``pytest -m cuda`` in a process of its own."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=180, check=False)
    return {"exit code": done.returncode, "summary": done.stdout.strip().splitlines()[-12:]}


def network_speed(
    preset: str, size: tuple[int, int], batch: int, options: argparse.Namespace
) -> dict[str, Any]:
    """SMOKE's network alone, channels-last: milliseconds of one image and images per second of a batch, by precision."""
    method, device = get_method("smoke"), options.device
    detector = (
        method.detector(method.presets[preset]()).to(device).eval().to(memory_format=torch.channels_last)
    )
    found: dict[str, Any] = {"preset": preset, "size": list(size), "batch": batch}
    for precision in ("float32", "bfloat16"):
        for count in (1, batch):
            images = torch.randn(count, 3, size[1], size[0], device=device)
            images = images.contiguous(memory_format=torch.channels_last)

            @torch.inference_mode()
            def work(images: torch.Tensor = images, precision: str = precision) -> None:
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    detector(images)

            each = seconds(work, device, options.repeats)
            key = f"{precision}, ms at batch 1" if count == 1 else f"{precision}, images/s"
            found[key] = round(1e3 * each, 3) if count == 1 else round(count / each, 1)
    return found


def training_speed(
    preset: str, size: tuple[int, int], batch: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Forward, backward and step of a batch that is on the device, bfloat16; a loss of the maps' squares in place of labels."""
    method, device = get_method("smoke"), options.device
    detector = method.detector(method.presets[preset]()).to(device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(detector, method.recipes[preset])
    images = torch.randn(batch, 3, size[1], size[0], device=device).contiguous(
        memory_format=torch.channels_last
    )

    def work() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            raw = detector(images)
        optimizer.zero_grad(set_to_none=True)
        torch.stack([maps.float().square().mean() for maps in raw.values()]).sum().backward()
        optimizer.step()

    return {"preset": preset, "size": list(size), "batch": batch,
            "images/s": round(batch / seconds(work, device, options.repeats), 1)}  # fmt: skip


def detect_speed(options: argparse.Namespace) -> dict[str, float]:
    """The bundled models from pixels to boxes, ms per image."""
    found = {}
    for name in ("smoke", "ss3d", "roi10d"):
        model = load(name, str(options.device))
        image = model.detect(zoo.EXAMPLE / "example.jpg", calib=zoo.EXAMPLE / "calib.txt").image
        work = lambda model=model, image=image: model.detect(image, fov=80.0)  # noqa: E731
        found[name] = round(1e3 * seconds(work, options.device, options.repeats), 2)
    return found


def deform_speed(options: argparse.Namespace) -> dict[str, float]:
    """A deformable layer of 64 channels on 96 x 320 cells beside a plain convolution, forward and backward, ms."""
    found = {}
    x = torch.randn(1, 64, 96, 320, device=options.device, requires_grad=True)
    for name, layer in (
        ("deformable", DeformConv2d(64, 64)),
        ("plain", torch.nn.Conv2d(64, 64, 3, padding=1)),
    ):
        there = layer.to(options.device)
        work = lambda there=there: there(x).square().mean().backward()  # noqa: E731
        found[name] = round(1e3 * seconds(work, options.device, options.repeats), 3)
    return found


def render_speed(options: argparse.Namespace) -> dict[str, float]:
    """Eight spheres of 5,120 faces at 128 x 128 pixels, forward and backward, ms."""
    vertices, faces = icosphere(2 if options.tiny else 4)
    device = options.device
    moved = (vertices + torch.tensor([0.0, 0.0, 4.0])).expand(8, -1, -1).to(device).requires_grad_()
    mesh = Mesh(moved, faces.to(device), torch.rand(len(faces), 3, 2, device=device),
                torch.rand(3, 32, 32, device=device))  # fmt: skip
    cameras = Camera.stack([Camera(120, 120, 63.5, 63.5, width=128, height=128)] * 8)

    def work() -> None:
        seen = render(mesh, cameras)
        (seen.colour.square().sum() + seen.silhouette.sum()).backward()

    return {"faces": len(faces), "ms": round(1e3 * seconds(work, device, options.repeats), 2)}


# -- the training -----------------------------------------------------------------------------------------------------


def endless(loader: Loader) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


def train_until(deadline: float, options: argparse.Namespace) -> dict[str, Any]:
    """Trains the recipe until ``deadline`` on the monotonic clock; a call that was cut off goes on from --scratch."""
    method, device = get_method(options.method), options.device
    chosen = choose(method, options.preset, settings=tuple(options.settings))
    data, recipe = KittiDataset(options.data), chosen.recipe
    labels = [data.labels(k) for k in range(len(data))]
    config = method.statistics(chosen.config, labels, chosen.keep) if chosen.measure else chosen.config
    torch.manual_seed(0)
    detector = method.detector(config).to(device).to(memory_format=torch.channels_last)
    average, optimizer = Average(detector, method, recipe.ema), make_optimizer(detector, recipe)
    views = Views([data], config, Augmenter.of(recipe.augmentation), Encoder(detector), 0)
    batches = endless(Loader(views, recipe.batch_size, Processes.join(str(device)), options.workers))
    state_file = options.scratch / "training.pt"
    step, spent = 0, 0.0
    if state_file.exists():
        saved = torch.load(state_file, map_location=device, weights_only=True)
        detector.load_state_dict(saved["detector"])
        average.detector.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        step, spent = saved["step"], saved["seconds"]
    start, kept, losses = time.monotonic() - spent, time.monotonic(), {}
    first = step
    while (now := time.monotonic()) < deadline or step == first:  # one step at least
        set_rate(optimizer, recipe.rate(min((now - start) / max(deadline - start, 1e-3), 1.0)))
        batch = next(batches).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            raw = detector(batch.network_images(detector))
        losses = detector.loss(raw, batch.targets)
        optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(detector.parameters(), recipe.clip)
        optimizer.step()
        detector.after_step()
        average.update(step)
        step += 1
        if now - kept > SAVE_SECONDS:
            keep(state_file, detector, average, optimizer, step, now - start)
            kept = now
    keep(state_file, detector, average, optimizer, step, time.monotonic() - start)
    left = leave(options.out / "model", average.detector, step, time.monotonic() - start)
    return {"steps": step, "images/s": round((step - first) * recipe.batch_size / (time.monotonic() - start - spent), 1),
            "losses": {name: round(float(value), 4) for name, value in losses.items()}, "model": left}  # fmt: skip


def keep(file: Path, detector: Detector, average: Average, optimizer: Any, step: int, spent: float) -> None:
    state = {"detector": detector.state_dict(), "average": average.detector.state_dict(),
             "optimizer": optimizer.state_dict(), "step": step, "seconds": spent}  # fmt: skip
    torch.save(state, file.with_suffix(".partial"))
    file.with_suffix(".partial").replace(file)


def leave(folder: Path, detector: Detector, step: int, spent: float) -> str:
    """The averaged weights as a checkpoint, unless a file would be larger than what can be brought back."""
    if 2 * sum(value.numel() for value in detector.state_dict().values()) > LARGEST:
        return f"not kept: more than {LARGEST} bytes"
    checkpoint.save(
        folder, detector, {"data": "benchmarks/gpu_run.py", "steps": step, "seconds": round(spent)}, half=True
    )
    return folder.name


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--scratch", type=Path, help="state of the training; by default OUT with -scratch behind"
    )
    parser.add_argument("--data", type=Path, help="KITTI folder to train on; without it nothing is trained")
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--train-minutes", type=float, default=60.0, help="at most; by default what is left")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--method", default="smoke")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument(
        "--tiny", action="store_true", help="small sizes and few repeats, to rehearse on a CPU"
    )
    options = parser.parse_args(arguments)
    began = time.monotonic()
    if options.device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: rehearse with --device cpu --tiny", file=sys.stderr)
        return 2
    options.scratch = options.scratch or options.out.with_name(options.out.name + "-scratch")
    for folder in (options.out, options.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    options.repeats = 1 if options.tiny else 20
    wide, batch = ((128, 64), 2) if options.tiny else ((1280, 384), 16)
    end = began + 60 * options.minutes
    tables = end - (SHARE_OF_TRAINING if options.data else 0) * 60 * options.minutes
    table = Table(options.out / "table.json")
    name = torch.cuda.get_device_name() if options.device.type == "cuda" else "cpu"
    table.set("device", {"name": name, "torch": torch.__version__, "tiny": options.tiny})
    paper = get_method("smoke").presets["paper"]().backbone
    for part, work in {
        "CUDA tests": lambda: (
            run_tests(options.device) if options.device.type == "cuda" else "skipped: no GPU"
        ),
        f"SMOKE paper ({paper}), network": lambda: network_speed("paper", wide, batch, options),
        "SMOKE default, network": lambda: network_speed("default", wide, batch, options),
        "SMOKE paper, training step": lambda: training_speed("paper", wide, batch, options),
        "SMOKE default, training step": lambda: training_speed("default", wide, batch, options),
        "detect": lambda: detect_speed(options),
        "deformable convolution": lambda: deform_speed(options),
        "renderer": lambda: render_speed(options),
    }.items():
        table.measure(part, work, tables)
    table.set("MonoDR", "not measured: its fits run on the CPU")
    if options.data:
        limit = min(end, time.monotonic() + 60 * options.train_minutes)
        table.measure("training", lambda: train_until(limit, options), end)
    return 0


if __name__ == "__main__":
    sys.exit(main())
