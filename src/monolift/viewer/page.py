"""The page: one HTML file that holds its styles, its program and its data, and asks the network for nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from monolift.files.folders import write_atomically
from monolift.geometry import CORNER_SIGNS, EDGES, FRONT
from monolift.geometry.boxes import NEAR_PLANE
from monolift.inference.results import Results3D
from monolift.viewer.encode import encode_scene
from monolift.viewer.scene import Scene, scene_of

# Nothing may be fetched, whatever a file name or a label contains; the served page may speak to its own server.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src {}; "
    "base-uri 'none'; form-action 'none'"
)


def scene_html(scenes: Sequence[Scene], title: str = "monolift") -> str:
    """One self-contained HTML page of several images; it opens from disk and without a network.

    Raises:
        InputError: for an image that cannot be read.
    """
    return "".join(page_parts((encode_scene(scene) for scene in scenes), [s.name for s in scenes], title))


def result_html(results: Results3D | Sequence[Results3D], title: str | None = None) -> str:
    """One self-contained page of detection results: the images, 3D scenes and numbers, linked; it opens offline.

    Args:
        title: by default the name of the first image.
    """
    several = [results] if isinstance(results, Results3D) else list(results)
    names = [result.name for result in several]
    frames = (encode_scene(scene_of(result)) for result in several)
    times = [result.time for result in several]
    return "".join(page_parts(frames, names, title or (names[0] if names else "monolift"), times))


def save_html(results: Results3D | Sequence[Results3D], path: str | Path) -> None:
    """Writes `result_html`, complete or not at all."""
    write_atomically(path, result_html(results), parents=True)


def page_parts(
    frames: Iterable[Mapping[str, Any]],
    names: Sequence[str],
    title: str,
    times: Sequence[float | None] = (),
) -> Iterator[str]:
    """The page in pieces, each frame encoded when its turn comes: head, one piece per frame, end.

    Args:
        names: of the frames, and ``times`` in seconds where they are a video's; read after the last frame, so that the
            iterator may leave some out.
    """
    before, after = _template(title, POLICY.format("'none'"))
    yield before
    for index, frame in enumerate(frames):
        yield _data(f'data-frame="{index}"', frame)
    yield _data('id="config"', _config(names, title, times, served=False)) + after


def served_page(names: Sequence[str], title: str, review: bool, times: Sequence[float | None] = ()) -> str:
    """The page that asks its server for one frame at a time."""
    before, after = _template(title, POLICY.format("'self'"))
    return before + _data('id="config"', _config(names, title, times, served=True, review=review)) + after


def _config(
    names: Sequence[str], title: str, times: Sequence[float | None], served: bool, review: bool = False
) -> dict[str, Any]:
    geometry = {"signs": CORNER_SIGNS, "edges": EDGES, "front": FRONT, "near": NEAR_PLANE}
    return {
        "title": title,
        "names": list(names),
        "times": list(times) if any(time is not None for time in times) else [],
        "served": served,
        "review": review,
        "geometry": geometry,
    }


def _template(title: str, policy: str) -> tuple[str, str]:
    """The page before and after its data."""
    page = _asset("web/page.html")
    page = page.replace("<!-- policy -->", policy).replace("<!-- title -->", _escaped(title))
    page = page.replace("/* style */", _asset("web/style.css"))
    before, _, rest = page.partition("<!-- data -->")
    middle, _, after = rest.partition("/* program */")
    return before, middle + _asset("built/viewer.js") + after


def _asset(path: str) -> str:
    return resources.files("monolift.viewer").joinpath(path).read_text("utf-8")


def _escaped(text: str) -> str:
    return _sound(text).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def _sound(text: str) -> str:
    """Text that UTF-8 can hold: names of files and classes may have halves of characters, which become question marks."""
    return text.encode("utf-8", "replace").decode()


def _data(attribute: str, content: Any) -> str:
    """A block of data. No "<" stands in it, so that no name inside can end it early."""
    text = _sound(json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False))
    return f'<script type="application/json" {attribute}>{text.replace("<", chr(92) + "u003c")}</script>\n'
