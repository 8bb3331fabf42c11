"""Kills subcommands with SIGKILL in the middle, repeats them, and compares what they leave with an undisturbed run.

    python benchmarks/kill.py                         all subcommands: 30 random moments and every call of each
    python benchmarks/kill.py synth convert --moments 5 --points 20 --json kill.json

Three kinds of kill, each in a process of its own:

    call     before the n-th open for writing, rename, swap, link, mkdir, remove or rmdir in the output's folder, for each n
    bytes    when a file grows beyond so many bytes, in the middle of a write (RLIMIT_FSIZE with the signal's own end)
    moment   at a random time of the run

After each kill: every file that bears its final name must equal that of the undisturbed run (journals, which grow line by
line, aside). Then the same command again: its exit code and every file must be those of the undisturbed run, and nothing
unfinished may stay. Only times are not compared, and a training's state as numbers instead of bytes.

The process imports the package once and forks, so that a run costs what it computes. It computes with one thread: a process
that has run threads of OpenMP must not fork, because its children wait for them for ever. A run that does not end within
--limit seconds is killed and is a fault. The exporter of ONNX graphs runs once; the killed exports write its file, and compare
it with PyTorch each time.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):  # before any of them is loaded
    os.environ[f"{library}_NUM_THREADS"] = "1"

import torch  # noqa: E402

from monolift.cli import main  # noqa: E402

torch.set_num_threads(1)
EVENTS = {"os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir"}
JOURNALS = ("detect.log", "manifest.jsonl")
"""Files that grow line by line; and those that a training rewrites as it goes."""
REWRITTEN = (
    "metrics.jsonl",
    "results.csv",
    "trainer.pt",
    "model.safetensors",
    "config.json",
    "run.toml",
    "all.txt",
)
SHOWN = 3  # faults of a subcommand that are printed
LIMIT = 900.0  # seconds of a run, on a machine under load
NO_END = 124  # exit code of a run that was killed at the limit


@dataclass(frozen=True)
class Subcommand:
    """A subcommand's arguments for inputs in ``inputs`` and an output folder, and how it is prepared in its own process."""

    arguments: Callable[[Path, Path], list[str]]
    prepare: Callable[[Path], None] = lambda _: None


def tiny(*more: str) -> list[str]:
    settings = ('classes=["Car"]', "input_width=128", "input_height=64", "head_channels=8", *more)
    return [word for setting in settings for word in ("--set", setting)]


def exported_once(inputs: Path) -> None:
    """The exporter's file instead of another run of it."""
    import monolift.export

    if (inputs / "graph.onnx").is_file():
        monolift.export.write_graph = lambda _, path: shutil.copyfile(inputs / "graph.onnx", path)


SUBCOMMANDS = {
    "synth": Subcommand(
        lambda inputs, out: [
            *("synth", "--out", str(out / "world"), "--images", "2", "--width", "96", "--height", "48"),
            *("--masks", "--depth", "--shapes", "--points", "--json", str(out / "made.json")),
        ]
    ),
    "augment": Subcommand(
        lambda inputs, out: [
            *("augment", "--data", str(inputs / "streets"), "--out", str(out / "pasted"), "--bank", "4"),
        ]
    ),
    "convert": Subcommand(
        lambda inputs, out: [
            *("convert", str(inputs / "world"), "--to", "kitti", "--out", str(out / "converted")),
        ]
    ),
    "coco": Subcommand(
        lambda inputs, out: [
            *("convert", str(inputs / "world"), "--to", "coco", "--out", str(out / "coco.json")),
        ]
    ),
    "detect": Subcommand(
        lambda inputs, out: [
            *("detect", str(inputs / "world/training/image_2"), "--model", str(inputs / "model")),
            *("--fov", "80", "--score", "0", "--backend", "torch", "--device", "cpu"),
            *(
                "--save",
                "kitti,json,image",
                "--json",
                str(out / "all.json"),
                "--out",
                str(out / "found"),
                "--resume",
            ),
        ]
    ),
    "train": Subcommand(
        lambda inputs, out: [
            *(
                "train",
                "smoke",
                "--data",
                str(inputs / "world"),
                "--out",
                str(out / "run"),
                "--device",
                "cpu",
            ),
            *(
                "--split",
                str(inputs / "train.txt"),
                "--val-split",
                str(inputs / "val.txt"),
                "--val-every",
                "1",
            ),
            *("--resume", "--save-minutes", "0", *tiny("batch_size=2", "epochs=2")),
        ]
    ),
    "autolabel": Subcommand(
        lambda inputs, out: [
            *("autolabel", "--data", str(inputs / "world"), "--out", str(out / "labels")),
            *("--masks", str(inputs / "world/training/instance_2"), "--limit", "2"),
            *("--depth", str(inputs / "world/training/depth_2"), "--save", "kitti,json,glb"),
            *("--set", "iterations=3", "--set", "crop=24", "--set", "escape_until=1"),
        ]
    ),
    "export": Subcommand(
        lambda inputs, out: [
            *(
                "export",
                str(inputs / "model"),
                "--out",
                str(out / "model.onnx"),
                "--folder",
                str(out / "folder"),
            ),
            *("--triton", str(out / "triton"), "--images", str(inputs / "world/training/image_2")),
        ],
        exported_once,
    ),
}


# --- processes


def forked(
    work: Callable[[], int], log: Path, kill_after: float | None = None, limit: float | None = None
) -> int:
    """The exit code of ``work`` in a process of its own, negative for the signal that ended it.

    A process that has not ended after ``limit`` seconds (None: LIMIT) is killed: exit code 124 and a line in the log.
    """
    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
    if threads > 1:
        raise SystemExit(
            f"{threads} threads run in this process: its children could wait for ever. Import kill.py before anything else"
        )
    child = os.fork()
    if child == 0:
        code = 70
        try:
            with log.open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", 0, closefd=False), write_through=True)
            sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", 0, closefd=False), write_through=True)
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    limit = LIMIT if limit is None else limit
    end = time.monotonic() + (limit if kill_after is None else kill_after)
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if kill_after is None:
        with log.open("a") as file:
            file.write(f"\nno end after {limit:g} s\n")
        return NO_END
    return code


def watched(out: Path, on_call: Callable[[str], None]) -> None:
    """Calls ``on_call`` before each call of this process that changes something below ``out``."""
    below = str(out)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "ctypes.dlsym" and arguments[1] == "renameat2":
            on_call("swap")
        elif event in EVENTS or event == "open":
            path = arguments[0]
            name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
            writes = event != "open" or (
                isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            )
            if name.startswith(below) and writes:
                on_call(event)

    sys.addaudithook(hook)


def counting(command: Subcommand, inputs: Path, out: Path, note: Path) -> int:
    calls = 0

    def count(_: str) -> None:
        nonlocal calls
        calls += 1

    command.prepare(inputs)
    watched(out, count)
    code = main(command.arguments(inputs, out))
    note.write_text(str(calls))
    return code


def killed_at(command: Subcommand, inputs: Path, out: Path, place: int) -> int:
    calls = 0

    def strike(_: str) -> None:
        nonlocal calls
        calls += 1
        if calls == place:
            os.kill(os.getpid(), signal.SIGKILL)

    command.prepare(inputs)
    watched(out, strike)
    return main(command.arguments(inputs, out))


def killed_beyond(command: Subcommand, inputs: Path, out: Path, most: int) -> int:
    command.prepare(inputs)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    return main(command.arguments(inputs, out))


def plainly(command: Subcommand, inputs: Path, out: Path) -> int:
    command.prepare(inputs)
    return main(command.arguments(inputs, out))


# --- what is left


def left(out: Path) -> dict[str, str]:
    """A digest of every file below a folder, and "" for folders; without times."""
    return {
        path.relative_to(out).as_posix(): "" if path.is_dir() else digest(path)
        for path in sorted(out.rglob("*"))
        if path.name != "detect.log"
    }


def digest(path: Path) -> str:
    if path.name == "trainer.pt":
        try:
            return _number_digest(torch.load(path, weights_only=True))
        except Exception as error:
            return f"damaged: {type(error).__name__}"
    data = path.read_bytes()
    if path.name == "manifest.jsonl":
        rows = [json.loads(line) for line in data.splitlines()]
        done = {row["source"]: row["status"] for row in rows if "source" in row}
        data = json.dumps(sorted(done.items())).encode()
    elif path.suffix == ".json":
        data = json.dumps(_without_times(json.loads(data))).encode()
    return hashlib.sha256(data).hexdigest()[:16]


def _number_digest(tree: Any) -> str:
    parts = hashlib.sha256()

    def add(one: Any) -> None:
        if isinstance(one, torch.Tensor):
            parts.update(one.contiguous().numpy().tobytes())
        elif isinstance(one, dict):
            for key in one:
                parts.update(str(key).encode())
                add(one[key])
        elif isinstance(one, list | tuple):
            for each in one:
                add(each)
        else:
            parts.update(repr(one).encode())

    add(tree)
    return parts.hexdigest()[:16]


def _without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {k: _without_times(v) for k, v in content.items() if k not in ("seconds", "made", "kept")}
    return [_without_times(v) for v in content] if isinstance(content, list) else content


# --- trials


@dataclass
class Tally:
    """What came of a subcommand's kills."""

    calls: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    ended_before: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


def trial(
    command: Subcommand,
    inputs: Path,
    folder: Path,
    kill: Callable[[Path], int],
    whole: dict[str, str],
    code: int,
) -> str:
    """What is wrong after a kill and after the repetition; empty where nothing is, "ended" where it came too late."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    killed = kill(out)
    if killed >= 0:
        if killed != code:
            return f"exit code {killed}: {(folder / 'log').read_text(errors='replace')[-300:]}"
        return "ended"
    torn = [
        name
        for name, found in safely_left(out).items()
        if found and name in whole and whole[name] != found and not rewritten(name)
    ]
    half = [
        name
        for name, found in safely_left(out).items()
        if found.startswith("damaged") and ".part" not in name
    ]
    again = forked(lambda: plainly(command, inputs, out), folder / "log")
    said = (folder / "log").read_text(errors="replace")[-300:]
    after = left(out)
    problems = [f"half a file after the kill: {', '.join((torn + half)[:3])}"] if torn or half else []
    if again != code:
        there = "already exists and is not overwritten" in said and after == whole
        if not there:  # a folder that was complete when the kill came: convert never overwrites one
            problems.append(f"repeated: exit code {again}: {said}")
    if after != whole:
        differ = sorted(name for name in {*after, *whole} if after.get(name) != whole.get(name))
        problems.append(f"differs: {', '.join(differ[:5])}")
    return "; ".join(problems)


def rewritten(name: str) -> bool:
    """Whether a file may hold other content before the end: journals, and what a training writes anew each epoch."""
    path = Path(name)
    return path.name in (*JOURNALS, *REWRITTEN) or path.parent.name == "val"


def safely_left(out: Path) -> dict[str, str]:
    """As `left`; a file that is no JSON is damaged."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            try:
                found[path.relative_to(out).as_posix()] = digest(path)
            except ValueError:
                if path.name not in JOURNALS:
                    found[path.relative_to(out).as_posix()] = "damaged: no JSON"
    return found


def examine(
    name: str, inputs: Path, folder: Path, moments: int, points: int | None, rng: random.Random
) -> Tally:
    """All kills of one subcommand; points: at most so many calls and sizes, drawn at random."""
    command, tally = SUBCOMMANDS[name], Tally()
    began = time.monotonic()
    log, out = folder / "log", folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if name == "export" and not (inputs / "graph.onnx").is_file():
        export = ["export", str(inputs / "model"), "--out", str(inputs / "graph.onnx")]
        expect(forked(lambda: main(export), log), 0, log)
    begun = time.monotonic()
    code = forked(lambda: counting(command, inputs, out, folder / "calls"), log)
    seconds = time.monotonic() - begun
    expect(code, 0, log)
    tally.calls = int((folder / "calls").read_text())
    whole = left(out)
    sizes = sorted({path.stat().st_size for path in out.rglob("*") if path.is_file()} - {0})
    places = range(1, tally.calls + 1)
    chosen = places if points is None else sorted(rng.sample(places, min(points, tally.calls)))
    limits = [rng.randrange(1, size) for size in sizes if size > 1]
    if points is not None:
        limits = rng.sample(limits, min(len(limits), max(1, points // 4)))
    kills: list[tuple[str, Callable[[Path], int]]] = []
    for place in chosen:
        kills.append(
            (f"call {place}", lambda o, p=place: forked(lambda: killed_at(command, inputs, o, p), log))
        )
    for most in limits:
        kills.append(
            (f"bytes {most}", lambda o, m=most: forked(lambda: killed_beyond(command, inputs, o, m), log))
        )
    for _ in range(moments):
        after = rng.uniform(0.02, 1) * seconds
        kills.append(
            (f"moment {after:.2f} s", lambda o, a=after: forked(lambda: plainly(command, inputs, o), log, a))
        )
    for label, kill in kills:
        said = trial(command, inputs, folder, kill, whole, code)
        if said == "ended":
            tally.ended_before += 1
            continue
        kind = label.split()[0]
        tally.kills[kind] = tally.kills.get(kind, 0) + 1
        if said:
            tally.faults.append(f"{name}, {label}: {said}")
    tally.seconds = time.monotonic() - began
    return tally


def expect(code: int, wanted: int, log: Path) -> None:
    if code != wanted:
        raise SystemExit(f"exit code {code}: {log.read_text(errors='replace')[-2000:]}")


def make_inputs(inputs: Path) -> None:
    """A world of four small images, splits, and a small detector with random weights."""
    from monolift.inference import checkpoint
    from monolift.methods.smoke import Smoke, SmokeConfig

    def make() -> int:
        torch.manual_seed(0)
        config = SmokeConfig(classes=("Car",), input_width=128, input_height=64, head_channels=8)
        checkpoint.save(inputs / "model", Smoke(config), {"score": 0.0})
        (inputs / "train.txt").write_text("000000\n000001\n000002\n000003\n")
        (inputs / "val.txt").write_text("000004\n")
        world = [
            "--images",
            "5",
            "--width",
            "320",
            "--height",
            "96",
            "--masks",
            "--depth",
            "--focal",
            "420",
            "--quiet",
        ]
        streets = [
            "--images",
            "4",
            "--width",
            "621",
            "--height",
            "188",
            "--seed",
            "1",
            "--quiet",
        ]  # cars to cut out
        return main(["synth", "--out", str(inputs / "world"), *world]) or main(
            ["synth", "--out", str(inputs / "streets"), *streets]
        )

    inputs.mkdir(parents=True, exist_ok=True)
    expect(forked(make, inputs / "log"), 0, inputs / "log")


def known(name: str) -> str:
    """The name of a subcommand that has a trial."""
    if name not in SUBCOMMANDS:
        raise argparse.ArgumentTypeError(f"expected {', '.join(SUBCOMMANDS)}, got {name!r}")
    return name


def parser_of(description: str) -> argparse.ArgumentParser:
    """The options that trials of subcommands share."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "subcommands", nargs="*", type=known, default=list(SUBCOMMANDS), help=", ".join(SUBCOMMANDS)
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="figures")
    return parser


def run(arguments: Sequence[str]) -> int:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--moments", type=int, default=30, help="random moments of each")
    parser.add_argument("--points", type=int, help="at most so many calls of each; all without it")
    options = parser.parse_args(arguments)
    figures, faults = {}, 0
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        folder = Path(name)
        make_inputs(folder / "inputs")
        for command in options.subcommands:
            rng = random.Random(f"{options.seed} {command}")
            (folder / command).mkdir()
            tally = examine(
                command, folder / "inputs", folder / command, options.moments, options.points, rng
            )
            faults += len(tally.faults)
            figures[command] = tally.__dict__
            kills = ", ".join(f"{count} {kind}" for kind, count in tally.kills.items())
            print(
                f"{command:10} {tally.calls} calls; killed: {kills}; {tally.ended_before} ended before; "
                f"{len(tally.faults)} faults; {tally.seconds:.0f} s",
                flush=True,
            )
            for fault in tally.faults[:SHOWN]:
                print("   ", " ".join(fault.split()), flush=True)
            if options.json:
                options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
