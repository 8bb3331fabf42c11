"""Charts as inline SVG: enough for the report, readable at 340 pixels and on paper, no script and no font to load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

# Okabe and Ito's colours: told apart by colour-blind readers and in grey print.
BLUE, RED, GREEN, ORANGE, PURPLE, SKY, GREY = (
    "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#8a8a8a",
)  # fmt: skip
SERIES = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)

WIDTH, HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 10, 40

Values = Sequence[float | None]


class Chart:
    """One pair of axes; series are added in drawing order, `figure` gives the HTML."""

    def __init__(
        self,
        title: str,
        x_label: str,
        y_label: str,
        x: tuple[float, float],
        y: tuple[float, float],
        x_ticks: Sequence[tuple[float, str]] | None = None,
        percent: bool = False,
    ) -> None:
        self.title, self.x_label, self.y_label = title, x_label, y_label
        self.x, self.y = x, (y[0], y[1] if y[1] > y[0] else y[0] + 1)
        self.x_ticks = list(x_ticks) if x_ticks is not None else [(t, f"{t:g}") for t in ticks(*x)]
        self.y_ticks = [(t, f"{t * 100:.4g} %" if percent else f"{t:g}") for t in ticks(*self.y)]
        self.body: list[str] = []
        self.legend: list[tuple[str, str, bool]] = []

    def px(self, x: float) -> float:
        """Pixel of a value on the horizontal axis."""
        return _LEFT + (x - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - _LEFT - _RIGHT)

    def py(self, y: float) -> float:
        """Pixel of a value on the vertical axis."""
        return HEIGHT - _BOTTOM - (y - self.y[0]) / (self.y[1] - self.y[0]) * (HEIGHT - _TOP - _BOTTOM)

    def line(
        self, xs: Sequence[float], ys: Values, colour: str, label: str = "", dashed: bool = False
    ) -> None:
        """A line that breaks where a value is missing; dots are added to short lines."""
        runs: list[list[str]] = [[]]
        dots = []
        for x, y in zip(xs, ys, strict=True):
            if y is None or not math.isfinite(y):
                runs.append([])
                continue
            runs[-1].append(f"{self.px(x):.1f},{self.py(y):.1f}")
            if len(xs) <= 20:
                dots.append(f'<circle cx="{self.px(x):.1f}" cy="{self.py(y):.1f}" r="2.4" fill="{colour}"/>')
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.body += [
            f'<polyline points="{" ".join(run)}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>'
            for run in runs
            if len(run) > 1
        ]
        self.body += dots
        if label:
            self.legend.append((colour, label, dashed))

    def bars(
        self,
        edges: Sequence[float],
        values: Values,
        colour: str,
        label: str = "",
        base: Sequence[float] | None = None,
        opacity: float = 1.0,
        tips: Sequence[str] | None = None,
    ) -> list[float]:
        """Bars between the edges, on top of `base`; returns their upper ends, to stack on."""
        base = base or [0.0] * len(values)
        tops = []
        for i, (value, low) in enumerate(zip(values, base, strict=True)):
            top = low + (value or 0.0)
            tops.append(top)
            left, right = self.px(edges[i]) + 0.8, self.px(edges[i + 1]) - 0.8
            height = self.py(low) - self.py(top)
            if height > 0:
                tip = f"<title>{escape(tips[i])}</title>" if tips else ""
                self.body.append(
                    f'<rect x="{left:.1f}" y="{self.py(top):.1f}" width="{right - left:.1f}" height="{height:.1f}" '
                    f'fill="{colour}" fill-opacity="{opacity:g}">{tip}</rect>'
                )
        if label:
            self.legend.append((colour, label, False))
        return tops

    def level(self, y: float, text: str) -> None:
        """A dashed horizontal mark with its name."""
        at = self.py(y)
        self.body.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="axis" stroke-dasharray="2 3"/>'
            f'<text x="{WIDTH - _RIGHT}" y="{at - 4:.1f}" text-anchor="end">{escape(text)}</text>'
        )

    def figure(self, caption: str = "") -> str:
        """The chart, its legend and a caption as an HTML figure."""
        legend = "".join(_swatch(*entry) for entry in self.legend)
        return _figure(self.title, HEIGHT, self._axes() + "".join(self.body), legend, caption)

    def _axes(self) -> str:
        left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM
        parts = [
            f'<line x1="{left}" x2="{right}" y1="{self.py(y):.1f}" y2="{self.py(y):.1f}" class="grid"/>'
            f'<text x="{left - 5}" y="{self.py(y) + 3.5:.1f}" text-anchor="end">{text}</text>'
            for y, text in self.y_ticks
        ]
        parts += [
            f'<text x="{self.px(x):.1f}" y="{bottom + 14}" text-anchor="middle">{escape(text)}</text>'
            for x, text in self.x_ticks
        ]
        parts.append(f'<line x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}" class="axis"/>')
        parts.append(
            f'<text x="{(left + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(self.x_label)}</text>'
        )
        middle = (top + bottom) / 2
        parts.append(
            f'<text transform="translate(11 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(self.y_label)}</text>'
        )
        return "".join(parts)


Interval = tuple[float, float, float]
"""value, low, high"""


def intervals(
    title: str, rows: Sequence[str], series: Sequence[tuple[str, Sequence[Interval | None]]]
) -> str:
    """A figure of dots with whiskers: under each row's name one interval per series, or nothing for None."""
    finite = [v for _, values in series for value in values if value for v in value if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    margin = 0.04 * (high - low) or 1.0
    low, high = low - margin, high + margin
    left, step = 104, 13
    row_height = step * len(series) + 10
    height = row_height * len(rows) + 34

    def px(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - 14)

    parts = [
        f'<line x1="{px(t):.1f}" x2="{px(t):.1f}" y1="4" y2="{height - 26}" class="grid"/>'
        f'<text x="{px(t):.1f}" y="{height - 12}" text-anchor="middle">{t:g}</text>'
        for t in ticks(low, high)
    ]
    for i, name in enumerate(rows):
        top = 8 + i * row_height
        parts.append(
            f'<text x="{left - 8}" y="{top + row_height / 2:.1f}" text-anchor="end">{escape(name)}</text>'
        )
        for k, (label, values) in enumerate(series):
            if (value := values[i]) and all(map(math.isfinite, value)):
                y, colour = top + (k + 0.5) * step, SERIES[k % len(SERIES)]
                parts.append(
                    f'<g stroke="{colour}" fill="{colour}"><title>{escape(label)}: {value[0]:.2f} ({value[1]:.2f} to '
                    f'{value[2]:.2f})</title><line x1="{px(value[1]):.1f}" x2="{px(value[2]):.1f}" y1="{y:.1f}" '
                    f'y2="{y:.1f}" stroke-width="2"/><circle cx="{px(value[0]):.1f}" cy="{y:.1f}" r="3.4"/></g>'
                )
    legend = "".join(_swatch(SERIES[k % len(SERIES)], label) for k, (label, _) in enumerate(series))
    return _figure(title, height, "".join(parts), legend)


def _swatch(colour: str, label: str, dashed: bool = False) -> str:
    kind = "dash" if dashed else "solid"
    return f'<span><i class="{kind}" style="color:{colour}"></i>{escape(label)}</span>'


def _figure(title: str, height: int, body: str, legend: str, caption: str = "") -> str:
    below = f"<p>{escape(caption)}</p>" if caption else ""
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">{body}</svg><div class="legend">{legend}</div>{below}</figure>'
    )


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that cover low to high in about `wanted` steps; the first is <= low or the range's own start."""
    if not high > low:
        return [low]
    raw = (high - low) / wanted
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]
