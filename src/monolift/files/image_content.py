"""What a file is, by its first bytes, before any decoder sees it."""

from __future__ import annotations

import struct
from collections.abc import Collection

from monolift.errors import InputError

_FOREIGN = (
    (b"%!PS", "an EPS or PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "an EPS file"),
    (b"%PDF", "a PDF file"),
    (b"8BPS", "a Photoshop file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL file"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 file"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"v/1\x01", "an OpenEXR file"),
    (b"#?RADIANCE", "a Radiance HDR file"),
    (b"\x00\x05\x16\x07", "a Mac's AppleDouble file (its image is in the file without ._)"),
    (b"<svg", "an SVG file"),
    (b"<?xml", "an XML file"),
    (b"<!DOC", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"version https://git-lfs", "a pointer to a file that Git LFS has not fetched"),
)
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "a HEIC file"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF file"),
    b"crx ": "a camera's raw file",
}


def refuse_foreign(head: bytes, where: str, formats: Collection[str]) -> None:
    """Raises InputError for content that is known to be something else, by name."""
    kind = next((name for mark, name in _FOREIGN if head.startswith(mark)), None)
    if head[4:8] == b"ftyp":
        kind = _BRANDS.get(head[8:12], "a video")
        if head[8:12] in (b"mif1", b"msf1") and b"avif" in head[12:48]:
            kind = "an AVIF file"
    if kind:
        raise InputError(
            f"{where}: not a readable image: {kind}; expected {', '.join(formats)}: convert it to PNG or JPEG"
        )


def webp_canvas(head: bytes) -> tuple[int, int] | None:
    """(width, height) of a WebP file's first 64 bytes: Pillow makes room for two canvases before it tells their size."""
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    kind, data = head[12:16], head[20:]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and data[3:6] == b"\x9d\x01\x2a":
        return max(1, struct.unpack_from("<H", data, 6)[0] & 0x3FFF), max(
            1, struct.unpack_from("<H", data, 8)[0] & 0x3FFF
        )
    return None
