"""Is the loader the bottleneck? Images per second that it delivers against those that one training step consumes.

python benchmarks/loader.py ROOT [--preset default] [--images 200]      (ROOT: a KITTI folder, for example of monolift synth)
"""

from __future__ import annotations

import argparse
import time

import torch

from monolift.augment.augment import Augmenter
from monolift.data.kitti import KittiDataset
from monolift.methods import get_method
from monolift.training.data import Encoder, Views


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--method", default="smoke")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    make = get_method(options.method)
    detector, recipe = make.detector(make.presets[options.preset]()), make.recipes[options.preset]
    views = Views(
        [KittiDataset(options.root)],
        detector.config,
        Augmenter.of(recipe.augmentation),
        Encoder(detector),
        seed=0,
    )
    size = options.batch
    steps = max(1, min(options.images, len(views)) // size)
    start = time.perf_counter()
    batches = [views[[(0, i) for i in range(k * size, (k + 1) * size)]] for k in range(steps)]
    loading = (time.perf_counter() - start) / (steps * size)
    start = time.perf_counter()
    steps = min(3, steps)
    for batch in batches[:steps]:
        raw = detector(batch.network_images(detector))
        detector.loss(raw, batch.targets)["total"].backward()
    training = (time.perf_counter() - start) / (steps * size)
    print(f"loading, augmenting and encoding  {1 / loading:7.1f} images/s, one process")
    print(f"recolouring, forward and backward {1 / training:7.1f} images/s, one thread")
    print(
        f"the loader takes {loading / (loading + training):.1%} of a step when it runs in the training process"
    )


if __name__ == "__main__":
    main()
