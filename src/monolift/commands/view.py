"""``monolift view``: images, boxes, points and meshes in the browser."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from monolift.commands.option import option
from monolift.errors import InputError

if TYPE_CHECKING:
    from monolift.viewer.open import Frames


@dataclass(frozen=True)
class View:
    """View results, labels, point clouds and meshes in the browser.

    monolift view kitti --predictions out --out scenes.html --limit 20
    """

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """KITTI-format folder, results (.json, .jsonl) or folder of them, autolabel output folder, or GLB file."""
    predictions: Annotated[Path | None, option("DIR")] = None
    """Folder of KITTI result files to compare with the labels."""
    images: Annotated[Path | None, option("DIR")] = None
    """Folder of the images or the video of result files, or data set of auto-labels, if moved."""
    split: Annotated[Path | None, option("FILE")] = None
    """Image ids of a KITTI-format folder, one per line (default: all)."""
    points: Annotated[Path | None, option("DIR")] = None
    """Folder of LiDAR scans (NAME.bin) or depth maps (NAME.png) (default: velodyne or depth_2 of the data set)."""
    limit: Annotated[int | None, option("N")] = None
    """Maximum number of images."""
    out: Annotated[Path | None, option("FILE.html")] = None
    """Write one self-contained HTML file instead of serving."""
    save_to: Annotated[Path | None, option("DIR")] = None
    """Review mode: output folder of the accepted boxes as KITTI labels; the input is never overwritten."""
    port: int = 0
    """Port on 127.0.0.1; 0 picks a free one."""
    open: bool = False
    """Open the page in the default browser."""
    json: Annotated[str | None, option("FILE")] = None
    """Write number of images and page address as JSON to FILE, or to standard output with "-"."""
    quiet: bool = False
    """Print the address only."""


def run(options: View) -> int:
    """Writes the page, or serves until interrupted. Raises InputError for a path that holds nothing to show."""
    from monolift.viewer.open import open_frames

    frames = open_frames(
        options.path, options.predictions, options.images, options.split, options.limit, options.points
    )
    if options.out is None:
        return _serve(options, frames)
    if options.save_to is not None:
        raise InputError("--save-to needs the server: a page from disk cannot write files; leave --out away")
    return _write(options, frames, options.out)


def _write(options: View, frames: Frames, out: Path) -> int:
    """Writes the page; scenes that cannot be read are named and left out. Returns 2 where there are such."""
    from monolift.data.formats.kitti_format import write_atomically
    from monolift.files.progress import Progress
    from monolift.viewer.encode import encode_scene
    from monolift.viewer.page import page_parts

    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {out}: expected a name that ends in .html")
    shown: list[str] = []
    times: list[float | None] = []
    failed: dict[str, str] = {}
    with Progress(len(frames), "images", options.quiet or len(frames) < 2) as progress:

        def encoded() -> Iterator[dict[str, Any]]:
            for index, name in enumerate(frames.names):
                try:
                    scene = encode_scene(frames[index])
                except InputError as error:
                    failed[name] = str(error)
                    progress.complain(f"monolift: {error}")
                else:
                    shown.append(name)
                    times.extend(frames.times[index : index + 1])
                    yield scene
                progress.advance(1, name)

        page = "".join(page_parts(encoded(), shown, _title(options), times)).encode()
    if not shown:
        raise InputError(f"{options.path}: none of {len(failed)} images can be shown")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page)
    content: dict[str, object] = {"images": len(shown), "file": str(out), "bytes": len(page)}
    _report(options, content | ({"failed": failed} if failed else {}))
    if not options.quiet:
        count = "1 image" if len(shown) == 1 else f"{len(shown)} images"
        sys.stderr.write(f"{out}: {count}, {len(page) / 1e6:.1f} MB, opens from disk\n")
    if options.open:
        _show(out.resolve().as_uri())
    if failed:
        sys.stderr.write(f"monolift: {len(failed)} images cannot be shown and are left out\n")
    return 2 if failed else 0


def _serve(options: View, frames: Frames) -> int:
    from monolift.viewer.server import ViewerServer

    with ViewerServer(frames, _title(options), options.port, options.save_to) as server:
        _report(options, {"images": len(frames), "url": server.url})
        (sys.stderr if options.json == "-" else sys.stdout).write(f"{server.url}\n")
        sys.stdout.flush()
        if not options.quiet:
            saved = f"; accepted labels go to {options.save_to}" if options.save_to else ""
            sys.stderr.write(f"{len(frames)} images{saved}; Ctrl+C ends\n")
        if options.open:
            _show(server.url)
        with contextlib.suppress(KeyboardInterrupt):  # how one is meant to leave
            server.serve_forever()
    return 0


def _title(options: View) -> str:
    return options.path.resolve().name or "monolift"


def _report(options: View, content: dict[str, object]) -> None:
    from monolift.commands.output import write_json

    if options.json is not None:
        write_json(options.json, content)
        sys.stdout.flush()


def _show(url: str) -> None:
    import webbrowser

    webbrowser.open(url)
