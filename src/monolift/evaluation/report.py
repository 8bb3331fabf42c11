"""The evaluation as one HTML file that needs nothing else: tables, remarks, curves and diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from monolift.data.formats.kitti_format import KittiLabels, write_atomically
from monolift.errors import InputError
from monolift.evaluation import diagnostics as diag
from monolift.evaluation.ap import Row
from monolift.evaluation.charts import class_figures
from monolift.evaluation.comparison import Comparison
from monolift.evaluation.protocol import CLASSES, LEVELS
from monolift.evaluation.svg import intervals
from monolift.evaluation.table import Evaluation

_SHORT = {"bbox": "2D", "aos": "AOS", "bev": "BEV", "3d": "3D"}

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--rule:#d5d9de;--paper:#fff;--band:#f4f6f8}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#a3abb4;--rule:#3b434b;--paper:#15191d;--band:#1f252b}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1180px;padding:16px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.5rem;line-height:1.25;margin:.2em 0;overflow-wrap:anywhere}h2{font-size:1.25rem;margin:1.6em 0 .4em;
border-top:1px solid var(--rule);padding-top:.8em;overflow-wrap:anywhere}h3{font-size:1rem;margin:1.4em 0 .3em}
p,li{max-width:75ch;overflow-wrap:anywhere}.soft,figure p{color:var(--soft);font-size:.85rem}
ul{padding-left:1.2em}nav a{margin-right:1em}a{color:inherit}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.82rem}
th,td{padding:.22em .5em;text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left}
thead th{font-weight:600;border-bottom:1px solid var(--rule)}tbody tr:nth-child(odd){background:var(--band)}
td.gap,th.gap{border-left:1px solid var(--rule)}tr.head td{font-weight:600;border-top:1px solid var(--rule)}
tr.head td[colspan]{text-align:left;font-weight:400}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:18px 22px}
figure{margin:0;min-width:0}figcaption{font-weight:600;font-size:.88rem;margin-bottom:.2em}
svg{width:100%;height:auto;display:block}svg text{font-size:10.5px;fill:var(--ink)}
.grid{stroke:var(--rule);stroke-width:.7}.axis{stroke:var(--soft);stroke-width:1}
.legend{display:flex;flex-wrap:wrap;gap:.1em .9em;font-size:.76rem;color:var(--soft);margin-left:8px}
.legend i{display:inline-block;width:14px;border-top:4px solid;margin-right:.35em;vertical-align:.22em}
.legend i.dash{border-top-style:dotted}figure p{margin:.3em 0 0 8px}
@media (max-width:480px){body{padding:10px;font-size:14px}th,td{padding:.2em .26em}table{font-size:.72rem}}
@media print{@page{margin:13mm}body{max-width:none;padding:0;font-size:10pt}nav{display:none}figure,tr{break-inside:avoid}
h2,h3,.soft{break-after:avoid}.charts{grid-template-columns:1fr 1fr;gap:5mm 6mm}.wide{overflow:visible}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""


def write_report(folder: str | Path, runs: Sequence[Evaluation], comparison: Comparison | None = None,
                 training: KittiLabels | None = None) -> Path:  # fmt: skip
    """Write report.html and diagnostics.json into a folder (made if need be) and return the report's path.

    `training`: the labels trained on, for the histograms behind the recall. Raises InputError when it cannot be written.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{target}: cannot make this folder: {error.strerror}") from None
    found = [diag.diagnose(run.corpus, list(run.matched.values()), training) for run in runs]
    named = [f'"{_json_name(run.name)}": {diag.to_json(one)}' for run, one in zip(runs, found, strict=True)]
    write_atomically(target / "diagnostics.json", ("{" + ",\n".join(named) + "}\n").encode())
    write_atomically(target / "report.html", render(runs, found, comparison).encode())
    return target / "report.html"


def render(
    runs: Sequence[Evaluation],
    diagnostics: Sequence[dict[str, diag.ClassDiagnostics]],
    comparison: Comparison | None = None,
) -> str:
    """The HTML text of the report."""
    first = runs[0]
    title = first.name if len(runs) == 1 else f"{len(runs)} runs compared"
    split = f"split {first.split}" if first.split else "all label files"
    links = [("compared", "Compared")] if comparison else []
    links += [(f"run{i}", run.name) for i, run in enumerate(runs)] if len(runs) > 1 else []
    body = [
        f"<h1>KITTI evaluation: {escape(title)}</h1>",
        f'<p class="soft">{first.images:,} images, {escape(split)}. AP by the official protocol of 2019, in percent: R40 '
        "is the mean precision at recall 1/40 to 40/40 (KITTI since October 2019), R11 at 0, 1/10 to 1; BEV is the "
        "bird's-eye view. Strict overlaps "
        "are the official ones, loose ones are customary beside them. Curves and diagnostics are no part of the official "
        "protocol.</p>",
        "<nav>" + "".join(f'<a href="#{to}">{escape(text)}</a>' for to, text in links) + "</nav>"
        if links
        else "",
        _compared(comparison) if comparison else "",
    ]
    for i, (run, found) in enumerate(zip(runs, diagnostics, strict=True)):
        body.append(_run(run, found, f"run{i}", heading=len(runs) > 1))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>KITTI evaluation: {escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _run(run: Evaluation, found: dict[str, diag.ClassDiagnostics], anchor: str, heading: bool) -> str:
    parts = [f'<section id="{anchor}">', f"<h2>{escape(run.name)}</h2>" if heading else "", _ap_table(run)]
    if run.notes:
        parts.append(
            "<h3>Remarks</h3><ul>" + "".join(f"<li>{escape(note)}</li>" for note in run.notes) + "</ul>"
        )
    for name, one in found.items():
        parts.append(
            f"<h2>{name}</h2><p class='soft'>{one.objects:,} objects within the limits of hard, {one.matched_2d:,} of them "
            f"matched in 2D (IoU above {diag.IOU_2D:g}).</p><div class='charts'>{''.join(class_figures(name, one, run))}</div>"
        )
    return "".join([*parts, "</section>"])


_NONE = '<td class="gap" colspan="3"></td>'


def _ap_table(run: Evaluation) -> str:
    head = (
        "".join(f"<th{_gap(i)}>{level.name.replace('erate', '.')}</th>" for i, level in enumerate(LEVELS)) * 3
    )
    lines = []
    for name in CLASSES:
        mine = [row for row in run.rows if row.class_name == name]
        if mine:
            counts = [next(r.n_gt for r in mine if r.difficulty == level.name) for level in LEVELS]
            shown = "".join(f"<td{_gap(i)}>{n:,}</td>" for i, n in enumerate(counts))
            lines.append(
                f'<tr class="head"><td>{name}</td>{shown}<td class="gap" colspan="3">ground truths</td>{_NONE}</tr>'
            )
        for metric, mode in _kinds(run):
            rows = [run.row(metric, name, level.name, mode) for level in LEVELS]
            if any(rows):
                r40 = "".join(
                    f"<td{_gap(i)}>{_number(r.ap_r40 if r else None)}</td>" for i, r in enumerate(rows)
                )
                r11 = "".join(
                    f"<td{_gap(i)}>{_number(r.ap_r11 if r else None)}</td>" for i, r in enumerate(rows)
                )
                share = "".join(_share_of_2d(run, name, metric, mode)) if metric in ("bev", "3d") else _NONE
                lines.append(f"<tr><td>{_kind(next(r for r in rows if r))}</td>{r40}{r11}{share}</tr>")
    if not lines:
        return "<p>Nothing to evaluate.</p>"
    return (
        '<div class="wide"><table><thead><tr><th></th><th class="gap" colspan="3">AP R40, percent</th>'
        '<th class="gap" colspan="3">AP R11, percent</th><th class="gap" colspan="3">AP R40 in percent of the 2D AP</th>'
        f"</tr><tr><th>overlap</th>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _share_of_2d(run: Evaluation, name: str, metric: str, mode: str) -> list[str]:
    """A cell per level: AP in percent of the 2D AP."""
    shares = [run.share_of_2d(metric, name, level.name, mode) for level in LEVELS]
    return [f"<td{_gap(i)}>{_number(share)}</td>" for i, share in enumerate(shares)]


def _kinds(run: Evaluation) -> list[tuple[str, str]]:
    """(metric, mode) of the rows to show: 2D and AOS are the same in both modes."""
    kinds = dict.fromkeys((row.metric, row.mode) for row in run.rows)
    return [(metric, mode) for metric, mode in kinds if mode == "strict" or metric in ("bev", "3d")]


def _kind(row: Row) -> str:
    return f"{_SHORT[row.metric]} &gt; {row.min_overlap:g}{' loose' if row.mode == 'loose' else ''}"


def _compared(comparison: Comparison) -> str:
    runs = comparison.runs
    draws = len(next(iter(comparison.samples[0].values()), ()))
    figures = []
    for name in CLASSES:
        rows = [row for row in _moderate(comparison) if row.class_name == name]
        series = []
        for i, run in enumerate(runs):
            mine = [run.row(*row.key) for row in rows]
            series.append((run.name, [(r.ap_r40, *comparison.interval(i, r)) if r else None for r in mine]))
        if rows:
            labels = [_kind(row).replace("&gt;", ">") for row in rows]
            figures.append(intervals(f"{name}, moderate, AP R40 in percent", labels, series))
    return (
        f"<section id='compared'><h2>Compared</h2><p class='soft'>Whiskers: 95 % of {draws} bootstrap samples over images. "
        "The samples are the same images for every run, so a difference can be sure although whiskers overlap; the "
        f"table says so. BEV: bird's eye.</p><div class='charts'>{''.join(figures)}</div>"
        f"{_differences(comparison)}{_seeds(comparison)}</section>"
    )


def _moderate(comparison: Comparison) -> list[Row]:
    """One row for each line of the comparison: whatever any run was evaluated on, at moderate."""
    found = {row.key: row for run in comparison.runs for row in run.rows if row.difficulty == "moderate"}
    shown = [row for row in found.values() if row.mode == "strict" or row.metric in ("bev", "3d")]
    return sorted(shown, key=lambda row: CLASSES.index(row.class_name))


def _differences(comparison: Comparison) -> str:
    runs = comparison.runs
    lines = []
    for row in _moderate(comparison):
        base = runs[0].row(*row.key)
        cells = []
        for i in range(1, len(runs)):
            mine = runs[i].row(*row.key)
            change = comparison.difference(i, mine) if mine else None
            if change is None:
                cells.append("<td class='gap'>-</td><td></td>")
                continue
            text = f"{change[0]:+.2f}"
            sure = f"<b>{text}</b>" if change[1] > 0 or change[2] < 0 else text
            cells.append(f"<td class='gap'>{sure}</td><td>{change[1]:+.2f} to {change[2]:+.2f}</td>")
        lines.append(
            f"<tr><td>{row.class_name} {_kind(row)}</td><td>{_number(base.ap_r40 if base else None)}</td>{''.join(cells)}</tr>"
        )
    heads = "".join(f'<th class="gap" colspan="2">{escape(run.name)}</th>' for run in runs[1:])
    return (
        "<h3>Differences, moderate, AP R40</h3><p class='soft'>To the first run, with 95 % intervals; bold where the interval "
        f"excludes 0.</p><div class='wide'><table><thead><tr><th></th><th>{escape(runs[0].name)}</th>{heads}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _seeds(comparison: Comparison) -> str:
    groups = comparison.seeds()
    lines = []
    for row in _moderate(comparison):
        spreads = [comparison.spread(members, row.key) for members in groups.values()]
        cells = [
            f"<td class='gap'>{s['mean']:.2f} &plusmn; {s['std']:.2f}</td><td>{s['min']:.2f} to {s['max']:.2f}</td>"
            if s
            else "<td class='gap'>-</td><td></td>"
            for s in spreads
        ]
        lines.append(f"<tr><td>{row.class_name} {_kind(row)}</td>{''.join(cells)}</tr>")
    if not groups:
        return ""
    heads = "".join(
        f'<th class="gap" colspan="2">{escape(k)}, {len(v)} seeds</th>' for k, v in groups.items()
    )
    return (
        "<h3>Seeds, moderate, AP R40</h3><p class='soft'>Mean, sample standard deviation, least and largest.</p><div "
        f"class='wide'><table><thead><tr><th></th>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _gap(i: int) -> str:
    return ' class="gap"' if i == 0 else ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _json_name(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')
