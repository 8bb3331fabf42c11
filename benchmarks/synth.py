"""How fast `monolift synth` makes images: one process, everything included (image, labels, masks, depth, points, codes).

    python benchmarks/synth.py [--images 20] [--seed 0] [--json FILE]

Times are process CPU time, user and system, so that other work on the machine hardly counts; files are made, not written.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from monolift.world.synthetic import World, frame_files

SIZES = ((640, 192), (1242, 375))
EXTRAS = ("masks", "depth", "points", "shapes")


def seconds_per_image(world: World, images: int) -> float:
    """CPU seconds for one image of the world and its files, mean over the first ones."""
    frame_files(world, 0)  # imports, caches
    start = time.process_time()
    for index in range(1, images + 1):
        frame_files(world, index)
    return (time.process_time() - start) / images


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    rows = []
    print(f"{'size':>10} {'files':<28}{'CPU s/image':>14}{'images/CPU s':>16}{'1,000 on 2 cores':>18}")
    for width, height in SIZES:
        for extras in ((), EXTRAS):
            world = World(
                seed=options.seed,
                width=width,
                height=height,
                **dict.fromkeys(extras, True),  # type: ignore[arg-type]
            )
            seconds = seconds_per_image(world, options.images)
            files = "image and labels" if not extras else "all"
            rows.append({"width": width, "height": height, "files": files, "cpu_seconds": seconds})
            minutes = 1000 * seconds / 2 / 60
            print(
                f"{f'{width}x{height}':>10} {files:<28}{seconds:>14.2f}{1 / seconds:>16.2f}{minutes:>14.1f} min",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
