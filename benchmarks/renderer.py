"""The differentiable renderer: speed, growth, a brute-force soft rasteriser on the same work, and the quality of its gradients.

    python benchmarks/renderer.py [--device cpu] [--threads 1] [--repeats 5] [--no-growth] [--gradients] [--json FILE]

The workload: 16 cars of 642 vertices and 1,280 faces, 128 x 128 crops, colour, silhouette and depth, a loss on all three,
gradients of screen vertices and of a 64 x 128 texture each. Times are milliseconds, the best of the repeats: process CPU time
on a CPU (the work of one thread, whoever else runs), wall time on CUDA. Without --device a GPU is measured too when there is
one. The brute-force rasteriser (every face asks every pixel, as SoftRas does) is timed on a few rows of one object's crop of
the workload and multiplied up: all of it would take too long.

--gradients compares the gradient of 1 - soft IoU with central differences of a silhouette of 16 x 16 samples per pixel,
over 16 cars x 7 degrees of freedom (x, y, z, yaw, length, height, width): about 20 s.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

# The cars and the oracle are the tests'.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from monolift.render.renderer import render_screen
from render_scene import CarScene, car_scene, compare, finite_differences, hard_target, silhouette_gradient

OBJECTS, SIZE, SUBDIVISIONS = 16, 128, 3
SOFT_ROWS = 4  # rows of one object that the brute-force rasteriser does; its cost is proportional to pixels and objects


@dataclass(frozen=True)
class Row:
    engine: str
    objects: int
    faces: int
    pixels: int
    forward_ms: float
    both_ms: float


def best_of(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Milliseconds of the fastest call, after one to warm up."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    best = float("inf")
    for repeat in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = clock()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if repeat > 0:
            best = min(best, 1e3 * (clock() - start))
    return best


def work(
    scene: CarScene, size: int, engine: str, device: torch.device
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward alone, and forward and backward."""
    mesh = scene.mesh.to(device)
    screen = scene.screen(scene.pose).detach().to(device)
    assert mesh.texture is not None
    leaves = screen.clone().requires_grad_(), mesh.texture.clone().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(len(screen), *channels, size, size, generator=generator).to(device)
        for channels in ((3,), (), ())
    ]

    def forward() -> Tensor:
        image = render_screen(mesh.with_texture(leaves[1]), leaves[0], size, size, engine=engine)  # type: ignore[arg-type]
        images = (image.colour, image.silhouette, image.depth)
        return torch.stack([(i * w).sum() for i, w in zip(images, weights, strict=True)]).sum()

    def without_graph() -> object:
        with torch.no_grad():
            return forward()

    return without_graph, lambda: torch.autograd.grad(forward(), leaves)


def measure(
    engine: str, objects: int, size: int, subdivisions: int, repeats: int, device: torch.device
) -> Row:
    scene = car_scene(objects, size, subdivisions=subdivisions)
    forward, both = work(scene, size, engine, device)
    row = Row(
        engine, objects, len(scene.mesh.faces), size * size,
        best_of(forward, repeats, device), best_of(both, repeats, device),
    )  # fmt: skip
    print(f"{engine:<8}{objects:>8}{row.faces:>8}{size:>6}^2{row.forward_ms:>12.1f}{row.both_ms:>12.1f}")
    return row


def soft_silhouette(triangles: Tensor, points: Tensor, sharpness: float = 1.0) -> Tensor:
    """Coverage (P,) of points by the triangles (F, 3, 2) as in SoftRas (Liu et al., ICCV 2019, equations 1 and 3): every
    face says how near every pixel is, in squared pixels."""
    start, end = triangles, triangles.roll(-1, 1)
    along = end - start
    to_point = points[:, None, None] - start  # (P, F, 3, 2)
    share = ((to_point * along).sum(-1) / along.square().sum(-1).clamp_min(1e-9)).clamp(0, 1)
    squared = (to_point - share[..., None] * along).square().sum(-1).amin(-1)
    side = along[..., 0] * to_point[..., 1] - along[..., 1] * to_point[..., 0]
    inside = (side >= 0).all(-1) | (side <= 0).all(-1)
    nearness = torch.where(inside, squared, -squared) * sharpness
    return 1 - torch.nn.functional.logsigmoid(-nearness).sum(1).exp()


def brute_force_ms(device: torch.device) -> float:
    """Milliseconds of the workload's silhouettes, forward and backward, by all faces x all pixels: from SOFT_ROWS rows."""
    scene = car_scene(1, SIZE, subdivisions=SUBDIVISIONS)
    screen = scene.screen(scene.pose).detach().to(device)[0, :, :2].requires_grad_()
    column = torch.arange(SIZE, device=device, dtype=torch.float32)
    faces = scene.mesh.faces.to(device)

    def both() -> None:
        for row in range(SIZE // (2 * SOFT_ROWS), SIZE, SIZE // SOFT_ROWS):
            points = torch.stack([column, torch.full_like(column, row)], 1)
            torch.autograd.grad(soft_silhouette(screen[faces], points).sum(), screen)

    return best_of(both, 1, device) * OBJECTS * SIZE / SOFT_ROWS


def gradient_table(engine: str) -> dict[str, object]:
    scene = car_scene(OBJECTS, SIZE)
    target = hard_target(scene, SIZE)
    truth = finite_differences(scene, SIZE, target)
    table: dict[str, object] = {}
    print(f"\n{'edge rule':<12}{'cosine':>9}{'slope':>8}{'worst freedom':>22}{'loss error':>12}")
    for rule in ("antialias", "kato"):
        report = compare(*silhouette_gradient(scene, SIZE, target, edge_rule=rule, engine=engine), *truth)
        name, error = report.worst_freedom
        print(
            f"{rule:<12}{report.cosine:>9.5f}{report.slope:>8.3f}{f'{name} {100 * error:.1f} %':>22}{report.loss_error:>12.5f}"
        )
        table[rule] = asdict(report)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", help="cpu or cuda; by default the CPU, and a GPU when there is one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--engines", nargs="+", help="numba and torch on a CPU, torch elsewhere")
    parser.add_argument("--no-growth", action="store_true", help="the workload only")
    parser.add_argument("--gradients", action="store_true", help="quality of the gradients too")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = [options.device] if options.device else ["cpu"] + ["cuda"] * torch.cuda.is_available()
    figures = {name: on_device(torch.device(name), options) for name in names}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def on_device(device: torch.device, options: argparse.Namespace) -> dict[str, object]:
    """Print and return the figures of one device."""
    engines = options.engines or (["numba", "torch"] if device.type == "cpu" else ["torch"])
    what = torch.cuda.get_device_name() if device.type == "cuda" else f"{options.threads} thread(s)"
    print(f"torch {torch.__version__}, {device}, {what}, best of {options.repeats}, milliseconds")
    print(f"{'engine':<8}{'objects':>8}{'faces':>8}{'pixels':>8}{'forward':>12}{'and back':>12}")
    cases = [(OBJECTS, SIZE, SUBDIVISIONS)]
    if not options.no_growth:
        cases += [(OBJECTS, SIZE, n) for n in (2, 4)] + [(OBJECTS, s, SUBDIVISIONS) for s in (64, 256)]
        cases += [(n, SIZE, SUBDIVISIONS) for n in (1, 4, 64)]
    rows = [measure(engine, *case, options.repeats, device) for engine in engines for case in cases]
    soft = brute_force_ms(device)
    workload = [
        row for row in rows if (row.objects, row.faces, row.pixels) == (OBJECTS, rows[0].faces, SIZE**2)
    ]
    ratios = ", ".join(f"{soft / row.both_ms:,.0f} times {row.engine}" for row in workload)
    print(f"brute-force soft rasteriser, silhouettes alone: {soft:,.0f}, that is {ratios}")
    figures: dict[str, object] = {"rows": [asdict(row) for row in rows], "brute_force_ms": soft}
    if options.gradients:
        figures["gradients"] = gradient_table(engines[0])
    return figures


if __name__ == "__main__":
    main()
