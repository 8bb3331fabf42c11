"""Deformable convolution against a plain convolution and against the ``grid_sample`` formulation, at SMOKE's
shapes.

    python benchmarks/deform.py [--device cuda] [--threads 1] [--repeats 7] [--json FILE]

All ways run in turns within one process, and the best of the repeats counts, so that the ratios mean
something on a busy machine. Times are milliseconds: process CPU time on a CPU (the work of one thread,
whoever else runs), wall time on CUDA.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from monolift.nn.deform import deform_conv2d, deform_conv2d_reference

# (in channels, out channels, rows, columns): layers of SMOKE's up-path for a 1280 x 384 image
SHAPES = ((64, 64, 96, 320), (128, 64, 48, 160), (256, 128, 24, 80), (512, 256, 12, 40))
OFFSET_PIXELS = 2.0  # standard deviation of the offsets; it decides how scattered the reads are


@dataclass(frozen=True)
class Row:
    shape: str
    direction: str
    convolution_ms: float
    deform_ms: float
    grid_sample_ms: float

    @property
    def over_convolution(self) -> float:
        return self.deform_ms / self.convolution_ms

    @property
    def faster_than_grid_sample(self) -> float:
        return self.grid_sample_ms / self.deform_ms


def measure(calls: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """Best time of each call in milliseconds, the calls taking turns."""
    best = dict.fromkeys(calls, float("inf"))
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            clock = time.perf_counter if device.type == "cuda" else time.process_time
            start = clock()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat > 0:  # the first round warms up
                best[name] = min(best[name], 1e3 * (clock() - start))
    return best


def benchmark(shape: tuple[int, int, int, int], backward: bool, repeats: int, device: torch.device) -> Row:
    in_channels, out_channels, height, width = shape
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator).to(device)

    x = normal(1, in_channels, height, width).contiguous(memory_format=torch.channels_last)
    offset = OFFSET_PIXELS * normal(1, 18, height, width)
    mask = normal(1, 9, height, width).sigmoid()
    weight, bias = 0.05 * normal(out_channels, in_channels, 3, 3), normal(out_channels)
    for tensor in (x, offset, mask, weight, bias):
        tensor.requires_grad_(backward)
    gradient = normal(1, out_channels, height, width).contiguous(memory_format=torch.channels_last)

    def step(forward: Callable[[], Tensor], inputs: tuple[Tensor, ...]) -> None:
        out = forward()
        if backward:
            torch.autograd.grad(out, inputs, gradient)

    deform = partial(deform_conv2d, x, offset, weight, bias, mask, padding=1)
    reference = partial(deform_conv2d_reference, x, offset, weight, bias, mask, padding=1)
    best = measure(
        {
            "convolution": partial(step, partial(F.conv2d, x, weight, bias, padding=1), (x, weight, bias)),
            "deform": partial(step, deform, (x, offset, mask, weight, bias)),
            "grid_sample": partial(step, reference, (x, offset, mask, weight, bias)),
        },
        repeats,
        device,
    )
    name = f"{in_channels}->{out_channels} @ {height}x{width}"
    direction = "forward+backward" if backward else "forward"
    return Row(name, direction, best["convolution"], best["deform"], best["grid_sample"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)

    print(
        f"torch {torch.__version__}, {device}, {options.threads} thread(s), best of {options.repeats}, milliseconds"
    )
    print(
        f"{'layer':<20}{'direction':<18}{'conv':>8}{'deform':>8}{'grid':>8}{'deform/conv':>13}{'grid/deform':>13}"
    )
    rows = []
    for shape in SHAPES:
        for backward in (False, True):
            row = benchmark(shape, backward, options.repeats, device)
            rows.append(row)
            print(
                f"{row.shape:<20}{row.direction:<18}{row.convolution_ms:8.1f}{row.deform_ms:8.1f}"
                f"{row.grid_sample_ms:8.1f}{row.over_convolution:13.2f}{row.faster_than_grid_sample:13.2f}"
            )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
