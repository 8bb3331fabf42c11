"""Runs the experiments of the papers' claims and writes docs/claims.md.

    python -m benchmarks.claims --list
    python -m benchmarks.claims                          runs the cheap ones that have no result yet, and writes the page
    python -m benchmarks.claims --method monodr --cost medium --seeds 0 1 --out runs/claims
    python -m benchmarks.claims --only monodr-depth-counts-most --again
    python -m benchmarks.claims --write                  only writes the page from the results that are there

Run it in the repository's root. Experiments that need real images take them from --kitti; without, they are left as they are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.claims.catalogue import catalogue
from benchmarks.claims.claim import COSTS, METHODS, Claim, Workspace
from benchmarks.claims.kept import read_result, write_result
from benchmarks.claims.page import PAGE, finding, page


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claims",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="claims with cost and verdict; runs nothing")
    parser.add_argument("--only", nargs="+", metavar="ID", help="these claims, whatever they cost")
    parser.add_argument("--method", choices=METHODS, help="claims of this method")
    parser.add_argument("--cost", choices=COSTS, help="the dearest experiments that are run (default: cheap)")
    parser.add_argument("--again", action="store_true", help="also those that have a result")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.parent.name}/{PAGE.name}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--kitti", type=Path, metavar="ROOT", help="a KITTI folder, for those that need one")
    parser.add_argument("--out", type=Path, default=Path("runs/claims"), help="what experiments keep")
    return parser.parse_args(arguments)


def selected(claims: dict[str, Claim], options: argparse.Namespace) -> list[Claim]:
    """The claims that the options name. Exits for an unknown id."""
    unknown = [name for name in options.only or () if name not in claims]
    if unknown:
        raise SystemExit(f"--only: no claim {', '.join(unknown)}; --list lists them")
    dearest = COSTS[-1] if options.only or options.list else options.cost or COSTS[0]
    return [
        claim
        for claim in claims.values()
        if (not options.only or claim.id in options.only)
        and (not options.method or claim.method == options.method)
        and COSTS.index(claim.cost) <= COSTS.index(dearest)
    ]


def listing(claims: list[Claim]) -> str:
    """One line per claim: id, cost, verdict."""
    width = max((len(claim.id) for claim in claims), default=0)
    return "\n".join(
        f"{claim.id:{width}}  {claim.cost:6}  {finding(claim, read_result(claim)).verdict}"
        for claim in claims
    )


def run(claims: list[Claim], workspace: Workspace, again: bool) -> None:
    """Runs the experiments without a result; with ``again`` all of them."""
    for claim in claims:
        if claim.run is None or (read_result(claim) is not None and not again):
            continue
        print(f"== {claim.id}: {claim.sentence}", file=sys.stderr, flush=True)
        figures = claim.run(workspace)
        if figures is None:
            print("   not run: needs --kitti", file=sys.stderr)
            continue
        write_result(claim, workspace.seeds, figures)
        found = claim.judge(figures)
        print(f"{claim.id}: {found.verdict}. {found.reason}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    claims = catalogue()
    chosen = selected(claims, options)
    if options.list:
        print(listing(chosen))
        return
    choice = options.only or options.method or options.cost or options.again
    if choice or not options.write:
        run(chosen, Workspace(options.out, tuple(options.seeds), options.kitti), options.again)
    if options.write or not choice:
        PAGE.write_text(page(claims.values()), encoding="utf-8")
        print(PAGE)


if __name__ == "__main__":
    main()
