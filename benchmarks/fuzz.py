# ruff: noqa: E501  (tables of hostile values)
"""Mutated files against every reader, seeded: each is accepted or refused by the package's own errors, quickly and in bounds.

python benchmarks/fuzz.py --inputs 100000 [--seed 0] [--only coco,masks] [--keep FOLDER]

A child process reads; its parent ends it when one input takes longer than a minute. An input is a finding when it raises
anything but InputError (of the runtime without torch: ValueError), takes more than 5 s of CPU, or raises the process's peak of
resident memory by more than 1 GB. Prints one line per kind of finding and the counts by target; exits with 1 where there are
findings. --keep: the first input of each kind is written there.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import random
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz_targets import Target, targets
from malformed import mutated

from monolift.errors import InputError, MissingExtraError

MOST_SECONDS, MOST_MB = 5.0, 1000.0
HANG_SECONDS = 60.0

WORDS = (
    "", "0", "-1", "nan", "inf", "-inf", "1e400", "1e38", "-1e308", "1e-320", "9" * 400, "1_000", "0x10", "\x00", "\ufeff", "é", "\u2028",
    "null", "true", "~", "[]", "{}", "[[", "]", "{", "}", '"', "'", "*a", "&a", "!!int ''", "!!python/object:os.system", "<<", "%", "---", ":",
    "2001-13-13", ",", "\t", "\r", "\n\n", "/", "../../etc/passwd", "[" * 3000, "{" * 3000, "999999999999", "2147483648", "18446744073709551616",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 0.5, 1e308, -1e308, 1e-320, 1e38, 10**18, 10**30, 2**31, 2**63, 2**64, 10**290, "", "x", "nan", "\0", "\ud800",
    "../../etc/passwd", "x" * 5000, [], {}, [None], [[]], [1], {"a": None}, {"size": [200_000, 200_000], "counts": [40_000_000_000]}, [1e999],
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What one input did that it should not. place: the package's innermost line."""

    target: str
    kind: str
    place: str
    number: int


def inputs(target: Target, seed: int, first: int, count: int) -> Iterator[tuple[int, bytes]]:
    """Numbered inputs of a target; each depends on its number and the seed alone."""
    for number in range(first, first + count):
        rng = random.Random(f"{seed}/{target.name}/{number}")
        yield number, mutate(rng, target, rng.choice(target.seeds))


def mutate(rng: random.Random, target: Target, sound: bytes) -> bytes:
    """Bytes, words of text, or values of JSON are replaced, removed, doubled."""
    kinds = {"json": 3, "text": 2}.get(target.kind, 1)
    match rng.randrange(kinds):
        case 0:
            return mutated(rng, sound)
        case 1:
            return _mutated_text(rng, sound)
        case _:
            return _mutated_json(rng, sound)


def _mutated_text(rng: random.Random, sound: bytes) -> bytes:
    lines = sound.decode("utf-8", "replace").split("\n")
    for _ in range(rng.choice((1, 1, 3))):
        k = rng.randrange(len(lines))
        words = lines[k].split(" ")
        match rng.randrange(5):
            case 0:
                words[rng.randrange(len(words))] = rng.choice(WORDS)
            case 1:
                words.insert(rng.randrange(len(words) + 1), rng.choice(WORDS))
            case 2:
                del words[rng.randrange(len(words))]
            case 3:
                lines.insert(k, lines[rng.randrange(len(lines))])
            case 4:
                words = [
                    w.replace(rng.choice("0123456789."), rng.choice(WORDS)) if rng.random() < 0.3 else w
                    for w in words
                ]
        lines[k] = " ".join(words)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _mutated_json(rng: random.Random, sound: bytes) -> bytes:
    try:
        content = json.loads(sound)
    except ValueError:
        return _mutated_text(rng, sound)
    for _ in range(rng.choice((1, 1, 1, 3))):
        places = list(_places(content))
        if not places:
            break
        holder, key = rng.choice(places)
        match rng.randrange(4):
            case 0 | 1:
                holder[key] = copy.deepcopy(rng.choice(VALUES))  # a later change must not reach the table
            case 2:
                del holder[key]
            case 3 if isinstance(holder[key], (int, float)):
                holder[key] = holder[key] * rng.choice((-1, 0, 1e9, 1e30, 1e-30))
            case _:
                holder[key] = [holder[key]] * rng.choice((1, 2, 50))
    return json.dumps(content).encode()


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(content.items()) if isinstance(content, dict) else list(enumerate(content)):
        yield content, key
        if isinstance(value, (dict, list)) and value:
            yield from _places(value)


def read(target: Target, content: bytes, folder: Path, number: int) -> Finding | None:
    """Reads one input; what is wrong about it, or None."""
    path = target.write(folder, content)
    before, start = _peak_mb(), time.process_time()
    kind, place = "", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(path)
    except (InputError, MissingExtraError, *target.allowed):
        pass
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        kind, place = type(error).__name__, _place(error)
    seconds, mb = time.process_time() - start, _peak_mb() - before
    if not kind and seconds > MOST_SECONDS:
        kind = f"{seconds:.0f} s"
    if not kind and mb > MOST_MB:
        kind = f"{mb:.0f} MB"
    return Finding(target.name, kind, place, number) if kind else None


def _place(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "monolift" in f.filename] or [None]
    last = frames[-1]
    return f"{'/'.join(Path(last.filename).parts[-2:])}:{last.lineno}" if last else "?"


def _peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(
    names: list[str],
    seed: int,
    count: int,
    on_finding: Callable[[Finding, bytes], None],
    progress: Callable[[str], None],
) -> Counter[str]:
    """Reads ``count`` inputs of each target in this process, in shares by cost."""
    done: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        known = targets(Path(folder) / "seeds")
        chosen = [t for t in known if not names or t.name in names]
        shares = {t.name: max(1, round(count * t.share / sum(c.share for c in chosen))) for t in chosen}
        for target in chosen:
            work = Path(folder) / target.name
            work.mkdir()
            for number, content in inputs(target, seed, 0, shares[target.name]):
                progress(f"{target.name} {number}")
                finding = read(target, content, work, number)
                done[target.name] += 1
                if finding:
                    on_finding(finding, content)
    return done


def _child(names: list[str], seed: int, count: int, pipe: Any) -> None:
    last = [0.0]

    def progress(place: str) -> None:
        if time.monotonic() - last[0] > 1:
            last[0] = time.monotonic()
            pipe.send(("at", place))

    done = run(
        names, seed, count, lambda finding, content: pipe.send(("finding", finding, content)), progress
    )
    pipe.send(("done", done))
    os._exit(0)  # threads of libraries may take their time to end


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    start = time.monotonic()
    mine, childs = multiprocessing.get_context("spawn").Pipe(False)
    names = [n for n in options.only.split(",") if n]
    child = multiprocessing.get_context("spawn").Process(
        target=_child, args=(names, options.seed, options.inputs, childs)
    )
    child.start()
    childs.close()
    kinds: Counter[tuple[str, str, str]] = Counter()
    done: Counter[str] = Counter()
    place = "the start"
    while True:
        if not mine.poll(HANG_SECONDS + (60 if place == "the start" else 0)):
            kinds[(place.split()[0], "no end", place)] += 1
            child.kill()
            break
        try:
            said = mine.recv()
        except EOFError:
            kinds[(place.split()[0], "the process died", f"near {place}")] += 1
            break
        if said[0] == "at":
            place = said[1]
        elif said[0] == "done":
            done = said[1]
            break
        else:
            finding, content = said[1:]
            key = (finding.target, finding.kind, finding.place)
            kinds[key] += 1
            if kinds[key] == 1:
                print(f"{finding.target} {finding.number}: {finding.kind} at {finding.place}", flush=True)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{finding.target}-{finding.number}").write_bytes(content)
    child.join()
    print(
        f"{sum(done.values()):,} inputs, seed {options.seed}, {time.monotonic() - start:.0f} s: {dict(done)}"
    )
    print(f"findings: {sum(kinds.values())} of {len(kinds)} kinds")
    for (target, kind, where), times in kinds.most_common():
        print(f"  {times:6d} x {target}: {kind} at {where}")
    return 1 if kinds else 0


if __name__ == "__main__":
    raise SystemExit(main())
