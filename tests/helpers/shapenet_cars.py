"""Models in ShapeNet's layout: NAME/models/model_normalized.obj with its materials' library and image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

Colour = tuple[float, float, float]
HALF = (0.2, 0.1875, 0.5)  # of the width, the height and the length: y up, front to -z


def write_box_car(
    folder: Path, paint: Colour, front: Colour | None = None, rear: Colour | None = None
) -> Path:
    """A box as long as 1, its body's colour from an image, its ends from the library; returns the OBJ file."""
    (folder / "models").mkdir(parents=True)
    (folder / "images").mkdir()
    pixels = np.full((4, 4, 3), np.round(255 * np.array(paint)), np.uint8)
    Image.fromarray(pixels).save(folder / "images" / "texture0.png")
    library = "newmtl body\nKd 0.5 0.5 0.5\nmap_Kd ../images/texture0.png\n"
    for name, colour in (("front", front or paint), ("rear", rear or paint)):
        library += f"newmtl {name}\nKd {colour[0]} {colour[1]} {colour[2]}\n"
    (folder / "models" / "model_normalized.mtl").write_text(library)
    corners = [(x, y, z) for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)]
    lines = ["mtllib model_normalized.mtl"]
    lines += ["v " + " ".join(f"{s * h}" for s, h in zip(c, HALF, strict=True)) for c in corners]
    lines += ["vt 0.1 0.1", "vt 0.9 0.1", "vt 0.9 0.9", "vt 0.1 0.9"]
    squares = {"front": [(1, 3, 4, 2)], "rear": [(5, 6, 8, 7)],
               "body": [(1, 5, 7, 3), (2, 4, 8, 6), (3, 7, 8, 4), (1, 2, 6, 5)]}  # fmt: skip
    for name, loops in squares.items():
        lines.append(f"usemtl {name}")
        lines += ["f " + " ".join(f"{v}/{k + 1}" for k, v in enumerate(loop)) for loop in loops]
    path = folder / "models" / "model_normalized.obj"
    path.write_text("\n".join(lines) + "\n")
    return path
