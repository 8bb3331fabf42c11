"""docs/claims.md: every claim with its experiment, figures and verdict."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.claims.claim import METHODS, VERDICTS, Claim, Finding, Table, without_figures
from benchmarks.claims.kept import FOLDER, Result, read_result

PAGE = Path(__file__).resolve().parents[2] / "docs" / "claims.md"
TITLES = {"smoke": "SMOKE", "ss3d": "SS3D", "roi10d": "ROI-10D", "monodr": "MonoDR"}

HEAD = """\
# Claims of the papers, tried here

Each row is a claim of one of the four papers in our words, and what came of trying it with this package. The experiments fit
two processor cores: a few hundred real images or synthetic cars, small networks, two random seeds unless a row names others.
They test directions (does A beat B?), not the papers' figures on full KITTI. A claim that fails is reported as plainly as one
that holds.

- **holds**: all figures that decide go the paper's way, with every random seed that was run.
- **holds in part**: some of them do, or not with every seed.
- **does not hold here**: they do not.
- **needs full KITTI**: the data or the compute at hand cannot decide; the row gives the commands that would.
- **not run**: the experiment is there, its figures are not.

`python -m benchmarks.claims --list` lists the claims, `--only ID --again` repeats an experiment, and `--write` writes this page
from the figures in `benchmarks/claims/results`. Cost: cheap is within a minute of one core, medium within twenty, long more.
"""


def finding(claim: Claim, result: Result | None) -> Finding:
    """What is known about a claim."""
    return claim.judge(result.figures) if result else without_figures(claim)


def page(claims: Iterable[Claim], folder: Path = FOLDER) -> str:
    """The whole page, from the results kept in ``folder``."""
    known = [(claim, read_result(claim, folder)) for claim in claims]
    found = [(claim, result, finding(claim, result)) for claim, result in known]
    parts = [HEAD, _summary(found)]
    for method in METHODS:
        own = [row for row in found if row[0].method == method]
        if own:
            parts += [f"## {TITLES[method]}\n", _overview(own), *(_section(*row) for row in own)]
    return "\n".join(parts).rstrip() + "\n"


def _summary(found: list[tuple[Claim, Result | None, Finding]]) -> str:
    rows = []
    for method in METHODS:
        verdicts = [f.verdict for claim, _, f in found if claim.method == method]
        if verdicts:
            rows.append(
                [TITLES[method], str(len(verdicts)), *(str(verdicts.count(verdict)) for verdict in VERDICTS)]
            )
    return _markdown(Table(["", "claims", *VERDICTS], rows)) if rows else ""


def _overview(found: list[tuple[Claim, Result | None, Finding]]) -> str:
    rows = [
        [f"[{claim.id}](#{claim.id})", claim.sentence, claim.source, f"**{f.verdict}**"]
        for claim, _, f in found
    ]
    return _markdown(Table(["", "claim", "source", "verdict"], rows))


def _section(claim: Claim, result: Result | None, found: Finding) -> str:
    lines = [f"### {claim.id}", "", f"{claim.sentence} ({claim.source})", ""]
    lines += [f"**{found.verdict[0].upper()}{found.verdict[1:]}.** {found.reason}", ""]
    if found.table is not None:
        lines += [_markdown(found.table)]
    seeds = f" Random seeds: {', '.join(map(str, result.seeds))}." if result and result.seeds else ""
    lines += [f"Experiment ({claim.cost}): {claim.setup}{seeds}", ""]
    if claim.origin and result:
        lines += [
            f"`benchmarks.claims` did not measure these figures: they are copied from {claim.origin}.",
            "",
        ]
    if claim.command:
        lines += _commands(claim.command)
    if claim.full:
        lines += ["At the paper's size:", "", *_commands(claim.full)]
    return "\n".join(lines)


def _commands(text: str) -> list[str]:
    return ["<!-- not run: an experiment -->", "```bash", text.strip(), "```", ""]


def _markdown(table: Table) -> str:
    lines = ["| " + " | ".join(table.header) + " |", "|" + "---|" * len(table.header)]
    lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"
