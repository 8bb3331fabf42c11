"""Sample images with their labels drawn: 2D boxes, projected 3D boxes and the bird's-eye view."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from monolift.data.formats import kitti_format as fmt
from monolift.errors import InputError
from monolift.evaluation.protocol import DONT_CARE
from monolift.files.folders import find_file, text_file
from monolift.files.images import IMAGE_SUFFIXES, read_rgb, write_image
from monolift.inspection.oddities import project_box

_COLOURS = {
    "car": "#2f9bff",
    "van": "#00c2a8",
    "truck": "#00c2a8",
    "pedestrian": "#ff6a3d",
    "cyclist": "#ffc533",
}
_OTHER = "#d08cff"
_FAR = 70.0
"""Metres shown from above."""


def draw_samples(folder: Path, ids: Sequence[str], out: Path, count: int = 8, seed: int = 0) -> list[Path]:
    """Write `out`/ID.png for `count` images drawn at random, those without a readable image or calibration left out."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot make this folder: {error.strerror}") from None
    written: list[Path] = []
    for k in np.random.default_rng(seed).permutation(len(ids)).tolist():
        if len(written) == count:
            break
        image = find_file(folder / "image_2", ids[k], IMAGE_SUFFIXES)
        if image is None:
            continue
        try:
            labels = fmt.read_labels(text_file(folder / "label_2", ids[k]))
            p2 = fmt.read_calib(text_file(folder / "calib", ids[k])).p2
            drawn = draw_labels(Image.fromarray(read_rgb(image).pixels), labels, p2)
        except InputError:
            continue  # such files are among the findings already
        write_image(out / f"{ids[k]}.png", drawn)
        written.append(out / f"{ids[k]}.png")
    return written


def draw_labels(image: Image.Image, labels: fmt.KittiLabels, p2: np.ndarray) -> Image.Image:
    """The image with 2D boxes (thin) and 3D boxes (strong), and to its right the scene from above, 10 m between lines."""
    shown = labels.select([name.lower() != DONT_CARE for name in labels.names])
    drawn = image.copy()
    pen = ImageDraw.Draw(drawn)
    for name, box in zip(labels.names, labels.boxes2d.tolist(), strict=True):
        if box[2] >= box[0] and box[3] >= box[1]:
            pen.rectangle(box, outline="#9a9a9a" if name.lower() == DONT_CARE else _colour(name))
    if len(shown):
        edges = project_box(
            np.repeat(p2[None], len(shown), 0), shown.bottom, shown.size_hwl, shown.rotation_y
        )
        for name, lines in zip(shown.names, edges, strict=True):
            for line in lines[np.isfinite(lines).all(axis=(1, 2))]:
                # far outside the image Pillow's integer coordinates would overflow
                pen.line([tuple(p) for p in np.clip(line, -1e4, 1e4).tolist()], fill=_colour(name), width=2)
    above = _from_above(shown, drawn.height)
    sheet = Image.new("RGB", (drawn.width + above.width, drawn.height))
    sheet.paste(drawn, (0, 0))
    sheet.paste(above, (drawn.width, 0))
    return sheet


def _from_above(labels: fmt.KittiLabels, height: int) -> Image.Image:
    """z runs upward from 0 to _FAR, x to the right; the front of each box is marked."""
    scale = height / _FAR
    width = int(50 * scale)
    sheet = Image.new("RGB", (width, height), "#15191d")
    pen = ImageDraw.Draw(sheet)

    def place(x: float, z: float) -> tuple[float, float]:
        return width / 2 + x * scale, height - z * scale

    for z in range(10, int(_FAR), 10):
        pen.line([place(-25, z), place(25, z)], fill="#39424a")
    for i, name in enumerate(labels.names):
        length, wide = labels.size_hwl[i, 2], labels.size_hwl[i, 1]
        cos, sin = np.cos(labels.rotation_y[i]), np.sin(labels.rotation_y[i])
        x, _, z = labels.bottom[i]
        corners = [(a * length / 2, b * wide / 2) for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))]
        outline = [place(cos * a + sin * b + x, -sin * a + cos * b + z) for a, b in corners]
        pen.polygon(outline, outline=_colour(name))
        pen.line([place(x, z), place(x + cos * length / 2, z - sin * length / 2)], fill=_colour(name))
    return sheet


def _colour(name: str) -> str:
    return _COLOURS.get(name.lower(), _OTHER)
