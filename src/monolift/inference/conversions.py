"""Results for other people's tools: notebooks, pandas, supervision, rerun. Each library is imported where it is used."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from monolift.errors import MissingExtraError

if TYPE_CHECKING:
    from monolift.inference.results import Results3D

NOTEBOOK_WIDTH = 900  # pixels: a drawn image in a notebook is no wider
ROWS = 12  # a notebook's table ends there and names how many follow


def png(result: Results3D) -> bytes:
    """Return the drawn result as PNG, at most 900 pixels wide."""
    drawn = result.plot()
    if drawn.width > NOTEBOOK_WIDTH:
        drawn = drawn.resize((NOTEBOOK_WIDTH, round(drawn.height * NOTEBOOK_WIDTH / drawn.width)))
    data = io.BytesIO()
    drawn.save(data, "PNG")
    return data.getvalue()


def html_text(result: Results3D) -> str:
    """Return the drawn result and a table of its objects as HTML for a notebook's cell."""
    head = ("class", "score", "distance m", "x", "y", "z", "l", "h", "w", "yaw °")
    rows = []
    for row in records(result)[:ROWS]:
        numbers = [f"{row[k]:.2f}" for k in ("score", "distance", "x", "y", "z", "length", "height", "width")]
        degrees = f"{torch.tensor(row['yaw']).rad2deg():.0f}"
        cells = [html.escape(str(row["class"])), *numbers, degrees]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    more = len(result) - ROWS
    rest = f"<p>and {more} more</p>" if more > 0 else ""
    notes = "".join(f"<p>warning: {html.escape(text)}</p>" for text in result.warnings)
    image = base64.b64encode(png(result)).decode()
    table = (
        "<table><tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>" + "".join(rows) + "</table>"
    )
    return f'<p>{html.escape(str(result))}</p><img src="data:image/png;base64,{image}">{table}{rest}{notes}'


def records(result: Results3D) -> list[dict[str, Any]]:
    """Return one flat dict per object: metres, radians and pixels, as in `Results3D.to_json`."""
    rows = []
    for i in range(len(result)):
        x, y, z = result.boxes.center[i].tolist()
        length, height, width = result.boxes.size[i].tolist()
        x1, y1, x2, y2 = result.boxes2d[i].tolist()
        row = {
            "image": result.name, "class": result.classes[i], "score": float(result.scores[i]),
            "x": x, "y": y, "z": z, "length": length, "height": height, "width": width,
            "yaw": float(result.boxes.yaw[i]), "alpha": float(result.boxes.alpha[i]),
            "distance": float(result.distance[i]), "x1": x1, "y1": y1, "x2": x2, "y2": y2,
        }  # fmt: skip
        if result.objects.tracks is not None:
            row["track"] = int(result.objects.tracks[i])
        if result.objects.velocity is not None:
            row["speed"] = float(result.objects.velocity[i].norm())
        rows.append(row)
    return rows


def to_pandas(results: Results3D | Iterable[Results3D]) -> Any:
    """Return a pandas.DataFrame with one row per object of one result or several.

    Raises:
        MissingExtraError: without pandas.
    """
    try:
        import pandas
    except ImportError:
        raise MissingExtraError("a table of pandas", "notebook") from None
    from monolift.inference.results import Results3D

    several = [results] if isinstance(results, Results3D) else results
    columns = list(records_columns())
    frame = pandas.DataFrame([row for result in several for row in records(result)])
    return frame if len(frame) else pandas.DataFrame(columns=columns)


def records_columns() -> tuple[str, ...]:
    """The keys of `records` of a result that was not tracked."""
    size = ("length", "height", "width", "yaw", "alpha", "distance")
    return ("image", "class", "score", "x", "y", "z", *size, "x1", "y1", "x2", "y2")


def to_supervision(result: Results3D) -> Any:
    """Return supervision.Detections: 2D boxes, scores, class ids; names, centres, sizes and yaw in ``data``.

    Raises:
        MissingExtraError: without supervision.
    """
    try:
        import supervision
    except ImportError:
        raise MissingExtraError("detections of supervision", "notebook") from None
    import numpy as np

    assert result.objects.labels is not None
    tracks = result.objects.tracks
    return supervision.Detections(
        xyxy=result.boxes2d.cpu().numpy().reshape(-1, 4).astype(np.float32),
        confidence=result.scores.cpu().numpy().astype(np.float32),
        class_id=result.objects.labels.cpu().numpy().astype(int),
        tracker_id=None if tracks is None else tracks.cpu().numpy().astype(int),
        data={
            "class_name": np.array(result.classes, dtype=str),
            "center": result.boxes.center.cpu().numpy(),
            "size": result.boxes.size.cpu().numpy(),
            "yaw": result.boxes.yaw.cpu().numpy(),
        },
    )


def log_to_rerun(result: Results3D, path: str = "world") -> None:
    """Log the camera, the image and the boxes to the current rerun recording (``rerun.init`` first).

    Args:
        result: of one image.
        path: entity path; camera frame, x right, y down, z forward.

    Raises:
        MissingExtraError: without rerun-sdk.
    """
    try:
        import rerun
    except ImportError:
        raise MissingExtraError("a recording of rerun", "rerun") from None
    height, width = result.image.shape[1:]
    camera = result.camera
    rerun.log(path, rerun.ViewCoordinates.RDF, static=True)
    rerun.log(
        f"{path}/camera",
        rerun.Pinhole(
            resolution=[width, height],
            focal_length=[float(camera.fx), float(camera.fy)],
            principal_point=[float(camera.cx), float(camera.cy)],
        ),
    )
    rerun.log(f"{path}/camera", rerun.Image(result.image.permute(1, 2, 0).cpu().numpy()))
    half = result.boxes.yaw.cpu() / 2
    turn = torch.stack([0 * half, half.sin(), 0 * half, half.cos()], 1)  # about y down, x y z w
    rerun.log(
        f"{path}/boxes",
        rerun.Boxes3D(
            centers=result.boxes.center.cpu().numpy(),
            half_sizes=result.boxes.size.cpu().numpy() / 2,
            quaternions=turn.numpy(),
            labels=list(result.classes),
        ),
    )
