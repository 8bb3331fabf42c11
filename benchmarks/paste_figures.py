"""The image of docs/augmentation.md: pasted cars in images of a data set, with depth after pasting where there is some.

monolift synth --out world --images 8 --seed 5 --masks --depth
python benchmarks/paste_images.py world --out augmentation.jpg [--rows 3] [--masks DIR] [--split FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from monolift.augment.cutouts import cut_out
from monolift.augment.paste import paste
from monolift.data.kitti import KittiDataset
from monolift.data.sample import Sample

WIDTH = 900  # pixels of an image


def drawn(sample: Sample, originals: int) -> Image.Image:
    """The image with a green bar above each pasted car."""
    image = Image.fromarray(sample.image.permute(1, 2, 0).contiguous().numpy())
    draw = ImageDraw.Draw(image)
    for x1, y1, x2, _ in sample.boxes2d[originals:].tolist():
        draw.line((x1, y1 - 6, x2, y1 - 6), fill=(30, 220, 60), width=4)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--split", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    plain = KittiDataset(options.data, options.split)
    has = {
        name: (plain.root / f"{folder}_2").is_dir()
        for name, folder in (("depth", "depth"), ("instances", "instance"))
    }
    data = KittiDataset(options.data, options.split, **has)
    bank = cut_out([data], options.masks, seed=options.seed)
    rows: list[list[Image.Image]] = []
    for k in range(len(data)):
        if len(rows) == options.rows:
            break
        sample = data[k]
        pasted = paste(sample, np.random.default_rng((options.seed, k)), bank)
        if len(pasted) == len(sample):
            continue
        row = [drawn(pasted, len(sample))]
        if pasted.depth is not None:
            near = torch.where(pasted.depth > 0, torch.exp(-pasted.depth / 25), 0.0)
            row.append(Image.fromarray((255 * near).byte().numpy()).convert("RGB"))
        rows.append([p.resize((WIDTH, round(WIDTH * p.height / p.width))) for p in row])
    columns, height = max(map(len, rows)), max(p.height for row in rows for p in row)
    sheet = Image.new("RGB", (columns * (WIDTH + 6) - 6, len(rows) * (height + 6) - 6), "white")
    for k, row in enumerate(rows):
        for column, image in enumerate(row):
            sheet.paste(image, (column * (WIDTH + 6), k * (height + 6)))
    sheet.save(options.out, quality=82)


if __name__ == "__main__":
    main()
