"""Fills the disk under subcommands, makes space, repeats them, and compares with an undisturbed run.

    python benchmarks/full_disk.py                    all subcommands of kill.py, three sizes each; needs the right to mount
    python benchmarks/full_disk.py synth --sizes 5

The output folder lies in a tmpfs that is too small by a share drawn at random. The command must end with exit code 1 and one
line, without a traceback and without anything unfinished. Then the file system grows, and the same command must end as if
undisturbed.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kill import SUBCOMMANDS, Subcommand, forked, left, make_inputs, parser_of, plainly

PAGE = 4096


def mounted(folder: Path, size: int, remount: bool = False) -> None:
    options = f"{'remount,' if remount else ''}size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def trial(command: Subcommand, inputs: Path, folder: Path, size: int, whole: dict[str, str]) -> str:
    """What is wrong when only ``size`` bytes fit; "fits" where they are enough."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    mounted(out, size)
    try:
        code = forked(lambda: plainly(command, inputs, out), folder / "log")
        lines = (folder / "log").read_text(errors="replace").splitlines()
        said = [line for line in lines if line.startswith("monolift: ")]
        if code == 0:
            return "fits"
        problems = []
        if (
            code != 1
            or not said
            or "No space left on device" not in said[-1]
            or "Traceback" in " ".join(lines)
        ):
            problems.append(f"exit code {code}: {' | '.join(lines[-2:])}")
        problems += [f"left {path.name}" for path in out.rglob(".*") if ".part" in path.name]
        mounted(out, 1 << 29, remount=True)
        again = forked(lambda: plainly(command, inputs, out), folder / "log")
        if again != 0:
            problems.append(f"repeated: exit code {again}: {(folder / 'log').read_text()[-200:]}")
        after = left(out)
        if after != whole:
            differ = sorted(name for name in {*after, *whole} if after.get(name) != whole.get(name))
            problems.append(f"differs: {', '.join(differ[:4])}")
        return "; ".join(problems)
    finally:
        subprocess.run(["umount", str(out)], check=True)


def run(arguments: Sequence[str]) -> int:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--sizes", type=int, default=3, help="of each")
    options = parser.parse_args(arguments)
    figures, faults = {}, 0
    with tempfile.TemporaryDirectory(prefix="full-") as name:
        root = Path(name)
        make_inputs(root / "inputs")
        for subcommand in options.subcommands:
            rng = random.Random(f"{options.seed} {subcommand}")
            command, folder = SUBCOMMANDS[subcommand], root / subcommand
            (folder / "out").mkdir(parents=True)
            forked(lambda c=command, f=folder: plainly(c, root / "inputs", f / "out"), folder / "log")
            whole = left(folder / "out")
            pages = sum(PAGE + path.stat().st_size // PAGE * PAGE for path in (folder / "out").rglob("*"))
            sizes = [PAGE * max(1, int(rng.uniform(0.0, 0.9) * pages / PAGE)) for _ in range(options.sizes)]
            said = {size: trial(command, root / "inputs", folder, size, whole) for size in sizes}
            wrong = {size: text for size, text in said.items() if text not in ("", "fits")}
            full = sum(text != "fits" for text in said.values())
            faults += len(wrong)
            figures[subcommand] = {"full": full, "faults": list(wrong.values())}
            print(f"{subcommand:10} full {full} times of {len(sizes)}; {len(wrong)} faults", flush=True)
            for size, text in wrong.items():
                print(f"    {size} bytes: {' '.join(text.split())}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
