"""Takes inputs or outputs away from subcommands while they run, and gives them back.

    python benchmarks/vanished.py                     all subcommands of kill.py, three calls each
    python benchmarks/vanished.py convert --points 9 --kinds input output

Three kinds:

    input       the folder of all inputs is renamed before the n-th change in the output folder
    output      the output folder is removed then
    read-only   the output folder lies in a file system that is mounted read-only; needs the right to mount

The command must end by itself with exit code 0, 1 or 2; where it is not 0, with a line of its own, and never with a traceback
or anything unfinished. Given back what was taken, the same command must end as if undisturbed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from full_disk import mounted
from kill import (
    SUBCOMMANDS,
    Subcommand,
    counting,
    expect,
    forked,
    left,
    make_inputs,
    parser_of,
    plainly,
    watched,
)

from monolift.cli import main

KINDS = ("input", "output", "read-only")


def taken_at(command: Subcommand, inputs: Path, out: Path, place: int, take: Callable[[], None]) -> int:
    """The command; before its call number ``place`` something is taken."""
    calls = 0

    def count(_: str) -> None:
        nonlocal calls
        calls += 1
        if calls == place:
            take()

    command.prepare(inputs)
    watched(out, count)
    return main(command.arguments(inputs, out))


def trial(
    command: Subcommand, inputs: Path, folder: Path, kind: str, place: int, whole: dict[str, str]
) -> str:
    """What is wrong with the command while something is taken, and afterwards; empty where nothing is."""
    out, log, gone = folder / "out", folder / "log", inputs.with_name("gone")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    if kind == "read-only":
        mounted(out, 1 << 20)
        subprocess.run(["mount", "-o", "remount,ro", str(out)], check=True)
    takes: dict[str, Callable[[], None]] = {
        "input": lambda: os.rename(inputs, gone),
        "output": lambda: shutil.rmtree(out),
        "read-only": lambda: None,
    }
    try:
        code = forked(lambda: taken_at(command, inputs, out, place, takes[kind]), log)
        problems = _of_the_end(code, log.read_text(errors="replace"))
        problems += [f"left {path.name}" for path in out.rglob(".*") if ".part" in path.name]
        if kind == "read-only" and code != 2:
            problems.append(f"exit code {code}, expected 2")
    finally:
        if gone.exists():
            os.rename(gone, inputs)
        if kind == "read-only":
            subprocess.run(["umount", str(out)], check=True)
    out.mkdir(exist_ok=True)
    again = forked(lambda: plainly(command, inputs, out), log)
    if "already exists and is not overwritten" in log.read_text(errors="replace"):
        shutil.rmtree(out)  # convert leaves out images that have failed, says so, and never overwrites
        out.mkdir()
        again = forked(lambda: plainly(command, inputs, out), log)
    after = left(out)
    if again != 0:
        problems.append(f"repeated: exit code {again}: {log.read_text(errors='replace')[-200:]}")
    if after != whole:
        differ = sorted(name for name in {*after, *whole} if after.get(name) != whole.get(name))
        problems.append(f"differs: {', '.join(differ[:4])}")
    return "; ".join(problems)


def _of_the_end(code: int, said: str) -> list[str]:
    problems = []
    if code not in (0, 1, 2):
        problems.append(f"exit code {code}")
    if "Traceback" in said:
        problems.append("a traceback")
    if code != 0 and not any(line.startswith("monolift: ") for line in said.splitlines()):
        problems.append("no line of error")
    return [f"{', '.join(problems)}: {said[-300:]}"] if problems else []


def run(arguments: Sequence[str]) -> int:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--points", type=int, default=3, help="calls of each kind")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    options = parser.parse_args(arguments)
    figures, faults = {}, 0
    with tempfile.TemporaryDirectory(prefix="vanished-") as name:
        inputs = Path(name) / "inputs"
        make_inputs(inputs)
        for subcommand in options.subcommands:
            rng = random.Random(f"{options.seed} {subcommand}")
            command, folder = SUBCOMMANDS[subcommand], Path(name) / subcommand
            (folder / "out").mkdir(parents=True)
            note = folder / "calls"
            undisturbed = forked(
                lambda c=command, f=folder, n=note: counting(c, inputs, f / "out", n), folder / "log"
            )
            expect(undisturbed, 0, folder / "log")
            whole, calls = left(folder / "out"), int(note.read_text())
            tally: dict[str, int] = {}
            wrong = []
            for kind in options.kinds:
                places = (
                    [1]
                    if kind == "read-only"
                    else rng.sample(range(1, calls + 1), min(options.points, calls))
                )
                for place in places:
                    tally[kind] = tally.get(kind, 0) + 1
                    if said := trial(command, inputs, folder, kind, place, whole):
                        wrong.append(f"{kind}, call {place} of {calls}: {said}")
            faults += len(wrong)
            figures[subcommand] = {"tried": tally, "faults": wrong}
            tried = ", ".join(f"{count} {kind}" for kind, count in tally.items())
            print(f"{subcommand:10} taken: {tried}; {len(wrong)} faults", flush=True)
            for text in wrong:
                print("   ", " ".join(text.split()), flush=True)
            if options.json:
                options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
