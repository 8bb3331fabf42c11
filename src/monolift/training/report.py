"""What a training shows of its epochs: lines to read, and the curves of loss and AP as an image in the run folder."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from monolift.render.draw.canvas import CLASS_COLORS, INK, PAPER, Canvas, Color

CURVES = "curves.png"
AP = re.compile(r"(?P<name>.+)_(?P<metric>bbox|bev|3d)_(?P<overlap>[\d.]+)")
METRICS = {"bbox": "2D", "bev": "BEV", "3d": "3D"}
OTHERS = ("epoch", "step", "total", "selection", "score")
SIZE, MARGIN, TEXT = (560, 360), (58, 34, 14, 34), 13.0  # pixels of a panel; left, top, right, bottom
AXIS: Color = (150, 158, 168)
GRID: Color = (222, 226, 231)
PALETTE: tuple[Color, ...] = tuple(
    (int(r * 0.75), int(g * 0.75), int(b * 0.75)) for r, g, b in CLASS_COLORS.values()
)

Row = Mapping[str, Any]


def epoch_lines(row: Row, epochs: int) -> list[str]:
    """An epoch as lines: the loss and its parts; of a validation AP R40 in percent, moderate, classes without any left out."""
    parts = [f"{name} {row[name]:.3g}" for name in row if _is_loss(name) and row[name]]
    total = f"  loss {row['total']:.4g}" if "total" in row else ""
    lines = [f"epoch {row['epoch']}/{epochs}{total}" + (f"  ({', '.join(parts)})" if parts else "")]
    if "selection" not in row:
        return lines
    classes: dict[str, list[str]] = {}
    for name, value in row.items():
        if (match := AP.fullmatch(name)) and value:
            classes.setdefault(match["name"], []).append(
                f"{METRICS[match['metric']]} {match['overlap']}: {value:.2f}"
            )
    shown = [f"{name} " + ", ".join(values) for name, values in classes.items()]
    lines += [f"  AP {line}" for line in shown] or ["  AP of every class is 0 so far"]
    if classes:
        lines.append(f"  selection {row['selection']:.2f}")
    return lines


def stale(rows: Sequence[Row]) -> int:
    """Validations since the best one, as "selection" counts; 0 without any."""
    scores = [row["selection"] for row in rows if "selection" in row]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def draw_curves(rows: Sequence[Row]) -> Image.Image:
    """Loss by epoch, its parts thin, and beside it AP by validation where there was one."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    losses = {"total": _series(rows, "total")} | {n: _series(rows, n) for n in names if _is_loss(n)}
    aps = {n: _series(rows, n) for n in names if AP.fullmatch(n) and any(row.get(n) for row in rows)}
    panels = [_panel("loss", losses, log=True)]
    if any("selection" in row for row in rows):
        panels.append(_panel("AP R40 %, moderate", {"selection": _series(rows, "selection")} | aps))
    image = Image.new("RGB", (SIZE[0] * len(panels), SIZE[1]), PAPER)
    for k, panel in enumerate(panels):
        image.paste(panel, (k * SIZE[0], 0))
    return image


def _is_loss(name: str) -> bool:
    return name not in OTHERS and not AP.fullmatch(name)


def _series(rows: Sequence[Row], name: str) -> list[tuple[float, float]]:
    """(epoch, value) where a value is known and finite."""
    known = [(float(row["epoch"]), row.get(name)) for row in rows]
    return [(x, float(y)) for x, y in known if isinstance(y, int | float) and math.isfinite(y)]


def _panel(title: str, series: Mapping[str, list[tuple[float, float]]], log: bool = False) -> Image.Image:
    """One chart, its legend where curves seldom are.

    log: a logarithmic axis, where all values are positive and they differ by more than a factor of ten.
    """
    canvas = Canvas(Image.new("RGB", SIZE, PAPER))
    canvas.text((MARGIN[0], 10), title, TEXT + 1, INK)
    points = [point for line in series.values() for point in line]
    if not points:
        canvas.text((SIZE[0] / 2, SIZE[1] / 2), "nothing yet", TEXT, AXIS, "mm")
        return canvas.finish()
    values = [y for _, y in points]
    falls = log
    log = log and min(values) > 0 and max(values) > 10 * min(values)
    ticks = _decades(min(values), max(values)) if log else _ticks(min(0.0, *values), max(values))
    first, last = min(x for x, _ in points), max(x for x, _ in points)

    def px(x: float, y: float) -> tuple[float, float]:
        along = (x - first) / (last - first) if last > first else 0.5
        low, high, at = (math.log(v) if log else v for v in (ticks[0], ticks[-1], y))
        up = (at - low) / (high - low)
        return (
            MARGIN[0] + along * (SIZE[0] - MARGIN[0] - MARGIN[2]),
            SIZE[1] - MARGIN[3] - up * (SIZE[1] - MARGIN[1] - MARGIN[3]),
        )

    for tick in ticks:
        left, right = px(first, tick), px(last, tick)
        ends = [(MARGIN[0], left[1]), (SIZE[0] - MARGIN[2], right[1])]
        canvas.line(np.array(ends), GRID, 1.0)
        canvas.text((MARGIN[0] - 6, left[1]), f"{tick:g}", TEXT - 2, AXIS, "rm")
    for epoch in sorted({round(first), round((first + last) / 2), round(last)}):
        canvas.text((px(epoch, ticks[0])[0], SIZE[1] - MARGIN[3] + 6), str(epoch), TEXT - 2, AXIS, "ma")
    canvas.text((SIZE[0] - MARGIN[2], SIZE[1] - 14), "epoch", TEXT - 2, AXIS, "ra")
    for k, (name, line) in enumerate(series.items()):
        color = INK if k == 0 else PALETTE[(k - 1) % len(PALETTE)]
        drawn = np.array([px(x, y) for x, y in line]).reshape(-1, 2)
        canvas.line(drawn, color, 2.2 if k == 0 else 1.3)
        if len(drawn) == 1:
            canvas.arc(drawn[0], 2.5, color, 2.0)
        side, anchor = (SIZE[0] - MARGIN[2] - 6, "ra") if falls else (MARGIN[0] + 6, "la")
        canvas.text((side, MARGIN[1] + 2 + 15 * k), _legend(name), TEXT - 2, color, anchor)
    return canvas.finish()


def _legend(name: str) -> str:
    match = AP.fullmatch(name)
    return f"{match['name']} {METRICS[match['metric']]} {match['overlap']}" if match else name


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, four or so."""
    high = high if high > low else low + 1
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step = next(step * f for f in (1, 2, 5, 10) if (high - low) / (step * f) <= 5)
    return [step * k for k in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten from at most ``low`` to at least ``high``."""
    return [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
