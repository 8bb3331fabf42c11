"""One reader for images: every kind that people have, upright and 8-bit, and a named error for everything else."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monolift.errors import InputError
from monolift.files.images import Limits, image_of_planes, image_size, opened, planes, read_rgb, write_image

WIDTH, HEIGHT = 96, 64


def scene() -> Image.Image:
    """Grey gradients of another size and content in each direction."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return Image.fromarray(np.stack([x * 2, y * 3, 40 + x + y], 2).astype(np.uint8))


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)  # type: ignore[arg-type]
    return file.getvalue()


def png(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    """A black PNG of any size, without its pixels ever taking memory."""
    row = bytes(1 + (width * bits * {0: 1, 2: 3, 6: 4}[colour] + 7) // 8)
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


# --- kinds


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_pixels(tmp_path: Path, image_format: str) -> None:
    path = tmp_path / f"a.{image_format.lower()}"
    path.write_bytes(saved(scene(), image_format))
    assert (read_rgb(path).pixels == np.asarray(scene())).all()
    assert read_rgb(path).size == image_size(path) == image_size(path.read_bytes()) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LA", "RGBA", "PA", "YCbCr", "RGBX"])
def test_all_modes_become_rgb(mode: str) -> None:
    image = scene().convert("L").convert(mode) if mode in ("1", "PA") else scene().convert(mode)
    found = read_rgb(image)
    assert found.pixels.shape == (HEIGHT, WIDTH, 3) and found.pixels.dtype == np.uint8
    expected = scene().convert("L").convert("RGB") if mode in ("L", "1", "LA", "PA") else scene()
    if mode not in ("P", "1"):
        assert np.abs(found.pixels.astype(int) - np.asarray(expected)).max() <= 3


def test_files_of_cmyk_palette_and_suffix_of_another_format(tmp_path: Path) -> None:
    for name, data in {
        "cmyk.jpg": saved(scene().convert("CMYK"), "JPEG", quality=100),
        "palette.GIF": saved(scene().quantize(256), "GIF"),
        "png.jpg": saved(scene(), "PNG"),
        "webp.png": saved(scene(), "WEBP", lossless=True),
        "progressive.JPG": saved(scene(), "JPEG", quality=100, progressive=True),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert np.abs(read_rgb(tmp_path / name).pixels.astype(int) - np.asarray(scene())).mean() < 12, name


def test_transparency_becomes_grey() -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[:, :48, 3] = 255
    found = read_rgb(saved(Image.fromarray(pixels), "PNG")).pixels
    assert (found[:, :48] == 0).all() and (found[:, 48:] == 128).all()
    palette = Image.new("P", (WIDTH, HEIGHT), 0)
    assert (read_rgb(saved(palette, "PNG", transparency=0)).pixels == 128).all()


# --- depth


def test_sixteen_bits_are_divided_by_256(tmp_path: Path) -> None:
    values = np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 10
    for name in ("a.png", "a.tif", "a.pgm"):
        Image.fromarray(values).save(tmp_path / name)
        found = read_rgb(tmp_path / name)
        assert (found.pixels == (values >> 8)[..., None]).all() and found.warnings == ()


def test_sixteen_bits_that_hold_less_are_warned_about() -> None:
    found = read_rgb(saved(Image.fromarray(np.full((HEIGHT, WIDTH), 4000, np.uint16)), "PNG"))
    assert (found.pixels == 15).all() and "nearly black" in found.warnings[0]


@pytest.mark.parametrize("kind, values", [("I", 70_000), ("I", -1), ("F", 0.5)])
def test_other_depths_are_one_clear_error(kind: str, values: float) -> None:
    array = np.full((HEIGHT, WIDTH), values, np.int32 if kind == "I" else np.float32)
    with pytest.raises(InputError, match=r"^image: expected 8 or 16 bits per pixel, got"):
        read_rgb(saved(Image.fromarray(array), "TIFF"))


# --- EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_is_applied_to_pixels_and_to_the_size_of_the_header(image_format: str, orientation: int) -> None:
    back = {
        2: 0,
        3: 3,
        4: 1,
        5: 5,
        6: 2,
        7: 6,
        8: 4,
    }  # Pillow's transpositions, the inverse of each orientation
    stored = scene() if orientation == 1 else scene().transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossy = {"quality": 100, "subsampling": 0} if image_format == "JPEG" else {}
    data = saved(stored, image_format, exif=exif, **({"lossless": True} if image_format == "WEBP" else lossy))
    assert np.abs(read_rgb(data).pixels.astype(int) - np.asarray(scene())).max() <= 6
    assert image_size(data) == (WIDTH, HEIGHT)


def test_broken_exif_is_ignored_with_a_warning() -> None:
    data = saved(scene(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 40)
    found = read_rgb(data)
    assert found.size == image_size(data) == (WIDTH, HEIGHT)
    for orientation in (0, 9, 200):
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert read_rgb(saved(scene(), "JPEG", exif=exif)).size == (WIDTH, HEIGHT)


def test_transparent_palette_keeps_its_transparency_when_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.new("P", (WIDTH, HEIGHT), 0), "PNG", transparency=0, exif=exif)
    assert (read_rgb(data).pixels == 128).all() and read_rgb(data).size == (HEIGHT, WIDTH)


# --- what is no image, or too much of one

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n{} loop\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", r"empty file \(0 bytes\)"),
        (b"no image", "not a readable image .expected JPEG, PNG"),
        (EPS, "an EPS or PostScript file"),
        (b"\xc5\xd0\xd3\xc6" + EPS, "an EPS file"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "a HEIC file"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0heic" + bytes(40), "a HEIC file"),
        (b"\0\0\0\x1cftypavif" + bytes(40), "an AVIF file"),
        (b"\0\0\0\x1cftypisom" + bytes(40), "a video"),
        (b"\xff\x0a" + bytes(40), "a JPEG XL file"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "a JPEG 2000 file"),
        (b"%PDF-1.4" + bytes(40), "a PDF file"),
        (b"\x00\x05\x16\x07" + bytes(40), "AppleDouble"),
        (b"<html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (saved(scene(), "JPEG")[:400], "not a readable image"),
        (saved(scene(), "PNG")[:100], "not a readable image"),
        (saved(scene(), "WEBP")[:60], "not a readable image"),
        (saved(scene(), "TGA"), "not a readable image"),
        (saved(scene(), "ICO"), "not a readable image"),
        (saved(scene(), "PCX"), "not a readable image"),
    ],
)
def test_what_is_no_image(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "a b.jpg"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"a b\.jpg: .*{reason}"):
        read_rgb(path)
    with pytest.raises(InputError, match=rf"^upload: .*{reason}"):
        read_rgb(data, "upload")


def test_a_postscript_file_runs_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def started(*args: object, **kwargs: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    (tmp_path / "loop.jpg").write_bytes(EPS)
    with pytest.raises(InputError, match="EPS"):
        read_rgb(tmp_path / "loop.jpg")


@pytest.mark.parametrize(
    "size, bits, reason",
    [
        ((30_000, 30_000), 1, "at most 80,000,000 pixels, got 900,000,000"),
        ((9_000, 9_000), 1, "at most 80,000,000 pixels"),
        ((32, 781_250), 8, "sides of at most 20,000 pixels, got 32 x 781250"),
        ((781_250, 32), 8, "sides of at most 20,000 pixels"),
        ((16, 2_000), 8, "at most 100 times the shorter, got 16 x 2000"),
    ],
)
def test_large_images_are_refused_on_their_header(
    tmp_path: Path, size: tuple[int, int], bits: int, reason: str
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size, bits=bits))
    for read in (read_rgb, image_size):
        with pytest.raises(InputError, match=rf"bomb\.png: expected .*{reason}"):
            read(path)


def test_limits_can_be_set() -> None:
    assert read_rgb(scene(), limits=Limits(pixels=WIDTH * HEIGHT)).size == (WIDTH, HEIGHT)
    with pytest.raises(InputError, match="photo: expected at most 6,143 pixels"):
        read_rgb(scene(), "photo", Limits(pixels=WIDTH * HEIGHT - 1))


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    for name, reason in {
        "x.png": "is a folder",
        "pipe.png": "not a regular file",
        "gone.png": "no such file",
        "none.png": "no such file",
    }.items():
        with pytest.raises(InputError, match=rf"{name}: {reason}"):
            read_rgb(tmp_path / name)
        with pytest.raises(InputError, match=rf"{name}: {reason}"):
            image_size(tmp_path / name)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_damaged_files_are_read_or_refused(image_format: str) -> None:
    whole = np.frombuffer(saved(scene(), image_format), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = whole.copy()
        data[rng.integers(0, min(len(data), 200), 4)] = rng.integers(0, 256, 4)
        for read in (read_rgb, image_size):
            try:
                read(data[: rng.integers(1, len(data) + 1)].tobytes())
            except InputError as error:
                assert str(error).startswith("image: ")


def test_errors_within_the_block_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(scene(), "PNG"))
    with (
        pytest.raises(InputError, match=r"a\.png: not a readable image \(zlib\)"),
        opened(tmp_path / "a.png"),
    ):
        raise zlib.error("zlib")


# --- writing


def test_writes_whole_images(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.asarray(scene()))
    write_image(tmp_path / "b.JPG", scene(), quality=95)
    assert (read_rgb(tmp_path / "a.png").pixels == np.asarray(scene())).all()
    assert Image.open(tmp_path / "b.JPG").format == "JPEG"
    with pytest.raises(InputError, match=r"no/c\.png: cannot write"):
        write_image(tmp_path / "no" / "c.png", scene())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.JPG"]


def test_planes_and_back() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    colours = planes(pixels)
    assert colours.flags.c_contiguous and (colours == pixels.transpose(2, 0, 1)).all()
    assert (np.asarray(image_of_planes(colours)) == pixels).all()
    assert (
        np.asarray(image_of_planes(np.broadcast_to(pixels[:1, :1, 0], (3, 5, 7)))) == pixels[0, 0, 0]
    ).all()
