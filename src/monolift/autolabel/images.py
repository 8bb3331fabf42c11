"""Visualisations of fits: cars rendered into their image, before and after, and as an animation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image

from monolift.data.sample import Objects
from monolift.geometry import EDGES, Boxes3D, Camera
from monolift.geometry.boxes import NEAR_PLANE
from monolift.inference.results import Results3D
from monolift.methods.monodr import FittedObjects
from monolift.render.draw.canvas import PAPER, Canvas, class_color
from monolift.render.draw.overlay import GAP, overlay
from monolift.render.mesh import Mesh
from monolift.render.renderer import render
from monolift.typing import Float, Tensor, UInt8

FRAMES, COLOURS = 30, 128
FRAME_MS, LAST_MS = 100, 1500
WIDTH = 320  # of each of an animation's two images, pixels
RESAMPLING = Image.Resampling.LANCZOS
MARGIN = 0.6  # round the object, in parts of its 2D box's longer side


def painted(image: UInt8[Tensor, "3 H W"], camera: Camera, meshes: Sequence[Mesh]) -> UInt8[Tensor, "3 H W"]:
    """The image with textured meshes before it, the nearest on top."""
    canvas = image.float() / 255
    height, width = image.shape[1:]
    for mesh in sorted(meshes, key=lambda m: -float(m.vertices[:, 2].mean())):
        window = _window(camera.px_from_cam(mesh.vertices), width, height)
        if window is None or float(camera.depth(mesh.vertices).min()) <= 0:
            continue
        x1, y1, x2, y2 = window
        seen = render(mesh, Camera.stack([camera.after_crop(x1, y1, x2 - x1, y2 - y1)]))
        place = canvas[:, y1:y2, x1:x2]
        canvas[:, y1:y2, x1:x2] = place * (1 - seen.silhouette[0]) + seen.colour[0]
    return (canvas.clamp(0, 1) * 255).round().to(torch.uint8)


def _window(pixels: Float[Tensor, "v 2"], width: int, height: int) -> tuple[int, int, int, int] | None:
    """x1, y1, x2, y2 of the part of an image that holds all of the pixels that lie in it; None when none do."""
    low, high = pixels.amin(0).floor().long().tolist(), pixels.amax(0).ceil().long().tolist()
    x1, y1 = max(low[0] - 1, 0), max(low[1] - 1, 0)
    x2, y2 = min(high[0] + 2, width), min(high[1] + 2, height)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def before_and_after(result: Results3D, start: Boxes3D) -> Image.Image:
    """Above, the image with the boxes where the fit began; below, with the fitted cars painted in and their boxes."""
    above = overlay(result.image, result.camera, Objects.named(start, result.classes))
    fitted = painted(result.image, result.camera, [m for m in result.meshes or () if m is not None])
    below = _wired(fitted, result.camera, result.boxes, result.classes, above.size)
    both = Image.new("RGB", (above.width, 2 * above.height + GAP), PAPER)
    both.paste(above, (0, 0))
    both.paste(below, (0, above.height + GAP))
    return both


def _wired(
    image: UInt8[Tensor, "3 H W"],
    camera: Camera,
    boxes: Boxes3D,
    classes: Sequence[str],
    size: tuple[int, int],
) -> Image.Image:
    """An image at a size, with nothing but the edges of boxes before it: what is painted in stays to be seen."""
    canvas = Canvas(Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).resize(size, RESAMPLING))
    camera = replace(camera, width=image.shape[2], height=image.shape[1]).after_resize(*size)
    for corners, name in zip(boxes.to(torch.float64).corners(), classes, strict=True):
        pixels = camera.px_from_cam(corners).numpy()
        ahead = (camera.depth(corners) > NEAR_PLANE).tolist()
        for a, b in EDGES:
            if ahead[a] and ahead[b]:
                canvas.line(pixels[[a, b]], class_color(name), 1.2, 0.9)
    return canvas.finish()


def animation(result: Results3D, labelled: FittedObjects) -> bytes:
    """A GIF of the fit of the image's largest object: the image on the left, the car as it was fitted on the right.
    ``labelled``: the result's objects, with their history. An image without objects is one still frame."""
    if not len(result):
        none = Boxes3D.empty()
        height, width = result.image.shape[1:]
        size = (WIDTH, round(WIDTH * height / width))
        return _gif([_wired(result.image, result.camera, none, (), size)])
    largest = int((result.boxes2d[:, 3] - result.boxes2d[:, 1]).argmax())
    name = (result.classes[largest],)
    image, camera = _close_up(result.image, result.camera, result.boxes2d[largest])
    size = (WIDTH, round(WIDTH * image.shape[1] / image.shape[2]))
    steps = labelled.history
    assert steps is not None
    last = len(steps) - 1
    frames = []
    for step in sorted(
        {round(last * (k / (FRAMES - 1)) ** 1.5) for k in range(FRAMES)}
    ):  # it moves most at first
        car = painted(image, camera, [labelled.mesh_at(step)[largest]])
        frame = Image.new("RGB", (2 * WIDTH + GAP, size[1]), PAPER)
        frame.paste(_wired(image, camera, Boxes3D.empty(), (), size), (0, 0))
        frame.paste(_wired(car, camera, steps[step][largest], name, size), (WIDTH + GAP, 0))
        frames.append(frame)
    return _gif(frames)


def _close_up(
    image: UInt8[Tensor, "3 H W"], camera: Camera, box2d: Float[Tensor, "4"]
) -> tuple[UInt8[Tensor, "3 h w"], Camera]:
    """The part of an image round an object, and its camera."""
    x1, y1, x2, y2 = box2d.tolist()
    margin = MARGIN * max(x2 - x1, y2 - y1)
    height, width = image.shape[1:]
    left, top = max(int(x1 - margin), 0), max(int(y1 - margin / 2), 0)
    right, bottom = min(int(x2 + margin) + 1, width), min(int(y2 + margin / 2) + 1, height)
    return image[:, top:bottom, left:right], camera.after_crop(left, top, right - left, bottom - top)


def _gif(frames: Sequence[Image.Image]) -> bytes:
    # One palette and no dithering: what stands still stays still, and costs nothing.
    palette = frames[-1].quantize(COLOURS)
    still = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    file = io.BytesIO()
    duration = [FRAME_MS] * (len(frames) - 1) + [LAST_MS]
    still[0].save(file, "GIF", save_all=True, append_images=still[1:], duration=duration, loop=0)
    return file.getvalue()
