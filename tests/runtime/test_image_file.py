"""The runtime's reader of images gives what the package's own gives, for every kind of image."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monolift.errors import InputError
from monolift.files import image_pixels, images
from monolift.runtime import image_file


def _kinds() -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (40, 64, 3), np.uint8))
    rgba = Image.fromarray(rng.integers(0, 256, (40, 64, 4), np.uint8))
    grey16 = Image.fromarray(rng.integers(0, 65536, (40, 64), np.uint16))

    def data(image: Image.Image, kind: str, **options: object) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)  # type: ignore[arg-type]
        return file.getvalue()

    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"):
        yield f"rgb.{kind}", data(rgb, kind)
    for mode in ("1", "L", "LA", "P"):
        yield f"{mode}.png", data(rgb.convert(mode), "PNG")
    yield "cmyk.jpg", data(rgb.convert("CMYK"), "JPEG")
    yield "alpha.png", data(rgba, "PNG")
    yield "alpha.webp", data(rgba, "WEBP")
    yield "palette.png", data(rgb.quantize(16), "PNG", transparency=3)
    yield "16.png", data(grey16, "PNG")
    yield "16.tif", data(grey16, "TIFF")
    yield "32.tif", data(Image.fromarray(np.full((40, 64), 70_000, np.int32)), "TIFF")
    yield "float.tif", data(Image.fromarray(np.full((40, 64), 0.5, np.float32)), "TIFF")
    for orientation in range(1, 10):
        exif = Image.Exif()
        exif[image_file.ORIENTATION] = orientation
        for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
            yield f"exif{orientation}.{kind}", data(rgb, kind, exif=exif)
    yield "broken_exif.jpg", data(rgb, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 40)
    yield "empty.jpg", b""
    yield "text.jpg", b"no image"
    yield "eps.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n{} loop\n"
    yield "cut.jpg", data(rgb, "JPEG")[:300]
    yield "tga.png", data(rgb, "TGA")
    yield "strip.png", data(Image.new("L", (2, 201)), "PNG")
    yield "tall.png", data(Image.new("1", (700, 20_001)), "PNG")
    yield "large.png", data(Image.new("1", (9_000, 9_000)), "PNG")


@pytest.mark.parametrize(("name", "content"), list(_kinds()), ids=[name for name, _ in _kinds()])
def test_both_readers_agree(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    try:
        expected = images.read_rgb(path).pixels
    except InputError:
        with pytest.raises(ValueError, match=name):
            image_file.read_rgb(path)
        return
    assert (image_file.read_rgb(path) == expected).all()
    with Image.open(io.BytesIO(content)) as image:
        assert (image_file.read_rgb(image) == expected).all()


def test_the_limits_are_the_same(tmp_path: Path) -> None:
    limits = images.LIMITS
    assert (limits.pixels, limits.side, limits.aspect) == (
        image_file.MOST_PIXELS,
        image_file.MOST_SIDE,
        image_file.MOST_ASPECT,
    )
    assert images.FORMATS == image_file.FORMATS
    assert image_pixels.UNDER_TRANSPARENCY == image_file.UNDER_TRANSPARENCY
    (tmp_path / "x.png").mkdir()
    for path in (tmp_path / "x.png", tmp_path / "none.png"):
        with pytest.raises(ValueError, match=path.name):
            image_file.read_rgb(path)
