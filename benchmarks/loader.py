"""Is the loader the bottleneck? Pictures per second that it delivers against those that one training step consumes.

python benchmarks/loader.py ROOT [--preset default] [--pictures 200]      (ROOT: a KITTI folder, for example of monolift synth)
"""

from __future__ import annotations

import argparse
import time

import torch

from monolift.data.kitti import KittiDataset
from monolift.methods import get_method
from monolift.training.train import Views


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--method", default="smoke")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    make = get_method(options.method)
    detector, recipe = make.detector(make.presets[options.preset]()), make.recipes[options.preset]
    views = Views([KittiDataset(options.root)], detector, recipe, seed=0)
    count = min(options.pictures, len(views))
    start = time.perf_counter()
    pairs = [views[(0, k)] for k in range(count)]
    loading = (time.perf_counter() - start) / count
    start = time.perf_counter()
    steps = max(1, min(3, count // options.batch))
    for k in range(steps):
        samples, images = zip(*pairs[k * options.batch : (k + 1) * options.batch], strict=True)
        raw = detector(torch.stack(images))
        detector.loss(raw, detector.encode(samples))["total"].backward()
    training = (time.perf_counter() - start) / (steps * options.batch)
    print(f"loading and augmenting  {1 / loading:7.1f} pictures/s, one process")
    print(f"forward and backward    {1 / training:7.1f} pictures/s, one thread")
    print(
        f"the loader takes {loading / (loading + training):.1%} of a step when it runs in the training process"
    )


if __name__ == "__main__":
    main()
