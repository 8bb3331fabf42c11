"""The report's figures of one class, from its diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from monolift.evaluation.diagnostics import CAUSES, Binned, ClassDiagnostics
from monolift.evaluation.svg import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SERIES, SKY, Chart
from monolift.evaluation.table import TITLES, Evaluation

_CAUSE_COLOURS = {
    "found": GREEN, "unseen": GREY, "confused": "#c0c0c0", "depth": BLUE, "size": ORANGE,
    "yaw": PURPLE, "place": SKY, "several": RED, "taken": "#f0e442",
}  # fmt: skip


def class_figures(name: str, one: ClassDiagnostics, run: Evaluation) -> list[str]:
    """All figures of a class as HTML, those that have nothing to show left out."""
    return [
        *_precision_recall(one, run, name),
        *_recall(
            "Recall by distance", "metres", one.recall_by_depth, _depth_ticks(one.recall_by_depth.edges)
        ),
        *_recall(
            "Recall by rotation",
            "rotation_y in degrees: 0 faces right, -90 away",
            one.recall_by_rotation,
            [(float(d), str(d)) for d in range(-180, 181, 60)],
        ),
        *_depth(one),
        *_size(one),
        *_yaw(one),
        *_failures(one),
    ]


def _precision_recall(one: ClassDiagnostics, run: Evaluation, name: str) -> list[str]:
    ap = {(r.metric, r.min_overlap, r.difficulty): r.ap_r40 for r in run.rows if r.class_name == name}
    figures = []
    for metric, least in dict.fromkeys((c["metric"], c["min_overlap"]) for c in one.curves):
        chart = Chart(f"{TITLES[metric]}, overlap > {least:g}", "recall", "precision", (0, 1), (0, 1))
        mine = [c for c in one.curves if (c["metric"], c["min_overlap"]) == (metric, least)]
        for colour, curve in zip(SERIES, mine, strict=False):
            label = f"{curve['difficulty']} (R40 {ap[metric, least, curve['difficulty']]:.2f})"
            # the first threshold may already find many objects: its precision is taken for all recall below
            recall, precision = [0.0, *curve["recall"]], [*curve["precision"][:1], *curve["precision"]]
            chart.line(recall[: len(precision)], precision, colour, label)
        figures.append(chart.figure())
    return figures


def _recall(title: str, unit: str, binned: Binned, x_ticks: Sequence[tuple[float, str]]) -> list[str]:
    if not sum(binned.objects):
        return []
    edges = binned.edges
    chart = Chart(title, unit, "recall", (edges[0], edges[-1]), (0, 1), x_ticks, percent=True)
    behind = binned.training or binned.objects
    what = "training objects" if binned.training else "objects evaluated"
    most = max(behind) or 1
    tips = [f"{n:,} {what}" for n in behind]
    chart.bars(
        edges,
        [0.98 * n / most for n in behind],
        GREY,
        f"{what} (largest bin {most:,})",
        opacity=0.28,
        tips=tips,
    )
    centres = [(a + b) / 2 for a, b in pairwise(edges)]
    for label, hits in binned.found.items():
        colour = {"2": BLUE, "b": RED, "3": GREEN}[label[0]]
        share = [h / n if n else None for h, n in zip(hits, binned.objects, strict=True)]
        chart.line(centres, share, colour, label, dashed="loose" in label)
    return [chart.figure("Grey: histogram of the " + what + ".")]


def _depth(one: ClassDiagnostics) -> list[str]:
    error = one.depth_error
    edges = [float(e or 0.0) for e in error["edges"]]
    if not one.matched_2d:
        return []
    known = [v for v in error["mean_abs"] if v is not None]
    marks = _depth_ticks(edges)
    metres = Chart(
        "Depth error by distance", "metres", "metres", (edges[0], edges[-1]), (0, 1.1 * max(known)), marks
    )
    tips = [f"{n:g} objects" for n in error["count"]]
    centres = [(a + b) / 2 for a, b in pairwise(edges)]
    metres.bars(edges, error["mean_abs"], BLUE, "mean of |error|", opacity=0.55, tips=tips)
    metres.line(centres, error["median_abs"], RED, "median")
    metres.line(centres, [None if v is None else abs(v) for v in error["bias"]], GREEN, "|bias|", dashed=True)
    shares = [v for v in error["mean_relative"] if v is not None]
    share = Chart(
        "Relative depth error by distance", "metres", "share of the distance", (edges[0], edges[-1]),
        (0, max(0.06, 1.1 * max(shares))), marks, percent=True,
    )  # fmt: skip
    share.bars(edges, error["mean_relative"], BLUE, "mean of |error| / distance", opacity=0.55, tips=tips)
    share.level(0.05, "5 %")
    return [metres.figure(f"{one.matched_2d:,} objects matched in 2D."), share.figure()]


def _size(one: ClassDiagnostics) -> list[str]:
    if not one.matched_2d:
        return []
    names = list(one.size_error)
    values = {
        key: [one.size_error[n][key] or 0.0 for n in names] for key in ("mean_abs", "bias", "mean_relative")
    }
    low, high = min(0.0, *values["bias"]), max(*values["mean_abs"], *values["bias"])
    marks = [
        (i + 0.5, f"{n} ({r * 100:.1f} %)")
        for i, (n, r) in enumerate(zip(names, values["mean_relative"], strict=True))
    ]
    chart = Chart(
        "Size error", "in brackets: mean of |error| / size", "metres", (0, 3), (1.1 * low, 1.1 * high), marks
    )
    for i, name in enumerate(names):
        first = i == 0
        tip = [f"{name}: {values['mean_abs'][i]:.3f} m, bias {values['bias'][i]:+.3f} m"]
        chart.bars(
            [i + 0.2, i + 0.5],
            [values["mean_abs"][i]],
            BLUE,
            "mean of |error|" if first else "",
            opacity=0.7,
            tips=tip,
        )
        bias = values["bias"][i]
        chart.bars(
            [i + 0.5, i + 0.8],
            [abs(bias)],
            ORANGE,
            "bias (detected - labelled)" if first else "",
            [min(bias, 0.0)],
            tips=tip,
        )
    return [chart.figure()]


def _yaw(one: ClassDiagnostics) -> list[str]:
    total = sum(one.yaw_error["counts"])
    if not total:
        return []
    shares = [n / total for n in one.yaw_error["counts"]]
    marks = [(float(d), str(d)) for d in range(0, 181, 30)]
    chart = Chart(
        "Yaw error", "degrees", "share of objects", (0, 180), (0, 1.05 * max(shares)), marks, percent=True
    )
    chart.bars(
        one.yaw_error["edges"], shares, PURPLE, tips=[f"{n:,} objects" for n in one.yaw_error["counts"]]
    )
    return [
        chart.figure(
            f"Median {one.yaw_error['median']:.1f}, mean {one.yaw_error['mean']:.1f} degrees; "
            f"{one.yaw_error['flipped'] * 100:.1f} % turned by more than 90 degrees."
        )
    ]


def _failures(one: ClassDiagnostics) -> list[str]:
    if not one.objects:
        return []
    figures = []
    edges = one.recall_by_depth.edges
    for mode, causes in one.failures.items():
        totals = [sum(column) for column in zip(*causes.values(), strict=True)]
        title = f"Why objects are missed in 3D, {mode}"
        chart = Chart(
            title,
            "metres",
            "share of objects",
            (edges[0], edges[-1]),
            (0, 1),
            _depth_ticks(edges),
            percent=True,
        )
        base: list[float] = [0.0] * len(totals)
        for cause, counts in causes.items():
            if sum(counts):
                shares = [n / t if t else 0.0 for n, t in zip(counts, totals, strict=True)]
                tips = [f"{CAUSES[cause]}: {n:,} of {t:,}" for n, t in zip(counts, totals, strict=True)]
                label = (
                    f"{CAUSES[cause].split(':')[0] if cause != 'confused' else 'other class'} {sum(counts):,}"
                )
                base = chart.bars(edges, shares, _CAUSE_COLOURS[cause], label, base, tips=tips)
        figures.append(
            chart.figure("Depth, size, yaw, place: the one correction that would fix the detection.")
        )
    return figures


def _depth_ticks(edges: Sequence[float]) -> list[tuple[float, str]]:
    return [(e, f"{e:g}" + ("+" if e == edges[-1] else "")) for e in edges[::2]]
