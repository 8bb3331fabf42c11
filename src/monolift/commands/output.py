"""Output shared by the subcommands: JSON and the console."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from monolift.errors import InputError
from monolift.files import json_text
from monolift.files.folders import partial_file, write_error
from monolift.files.json_text import format_json

WIDTH = 80  # columns of a terminal window as it opens


def write_json(target: str, content: Any) -> None:
    """Writes JSON to a file, complete or not at all, or to standard output with "-"."""
    if target == "-":
        sys.stdout.write(format_json(content) + "\n")
    else:
        json_text.write_json(target, content)


def write_json_rows(target: str, rows: Iterable[Any]) -> None:
    """As `write_json` of a list, of which one row at a time is in memory."""
    if target == "-":
        _write_rows(sys.stdout, rows)
        return
    with partial_file(target, parents=True) as partial, partial.open("wb") as file:
        text = io.TextIOWrapper(file, "utf-8", "surrogatepass", newline="\n")
        _write_rows(text, rows)
        text.flush()


def _write_rows(file: Any, rows: Iterable[Any]) -> None:
    none = True
    for row in rows:
        file.write(("[\n" if none else ",\n") + format_json([row])[2:-2])
        none = False
    file.write("[]\n" if none else "\n]\n")


def check_file(path: Path) -> None:
    """Raises InputError unless a file can be written under this name."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder: expected the name of a file to write")
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Raises InputError unless files can be written in a folder, or in the parent in which it is to be made."""
    there = next((p for p in (folder, *folder.absolute().parents) if p.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(4096))  # a full disk takes a name, but no content
            file.flush()
    except OSError as error:
        raise write_error(folder, error, "cannot write here") from None


@contextlib.contextmanager
def kept(done: Callable[[], int], total: int, how: str = "the same command continues") -> Iterator[None]:
    """Whatever file ends the job in this block: its error also says how many images are complete by then."""
    try:
        yield
    except InputError as error:
        if not done():
            raise
        said = f"{done()} of {count(total, 'image')} are complete" + (f": {how}" if how else "")
        raise type(error)(f"{error}; {said}") from None


def console(stderr: bool = False) -> Any:
    """rich's console, at least 80 columns wide: tables fit these, so that none is cut in a narrow window."""
    from rich.console import Console

    plain = Console(stderr=stderr)
    return Console(stderr=stderr, width=max(plain.width, WIDTH) if plain.is_terminal else WIDTH)


def count(number: int, noun: str) -> str:
    """ "1 file", "2 files"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
