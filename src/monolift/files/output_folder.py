"""Output folders that belong to a command: one process at a time writes there, and only what it was begun with.

`locked` keeps a second process out, `claim` another job. Both are one line of error before anything is touched.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from monolift.errors import InputError
from monolift.files.folders import (
    discard,
    is_partial,
    new_partial,
    sweep,
    to_disk,
    write_error,
)
from monolift.files.text import decode, read_bytes

LOCK = ".lock"


@contextlib.contextmanager
def locked(
    folder: str | os.PathLike[str], what: str, shard: str = "", shared: bool = False
) -> Iterator[None]:
    """While this process alone may write to the folder, which is made. What killed processes have left there is removed.

    The lock ends with the process, however it ends, and leaves nothing behind.

    Args:
        folder: an output folder.
        what: who writes there, "training", for the error.
        shard: "2/8": processes with other shards may write at the same time.
        shared: other processes that say so may write at the same time.

    Raises:
        InputError: where another process writes there, or nobody can.
    """
    folder = Path(folder)
    made = not folder.exists()
    held = contextlib.ExitStack()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _hold(held, folder / LOCK, what, alone=not (shard or shared))
        if shard:
            _hold(held, folder / f"{LOCK}-{shard.replace('/', '-of-')}", what, alone=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder}: expected a folder, or nothing yet, got a file") from None
    except OSError as error:
        held.close()
        raise write_error(folder, error, "cannot be written to") from None
    except InputError:
        held.close()
        raise
    try:
        with held:
            if not (shard or shared):
                sweep(folder, alone=True)
            yield
    finally:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only where nothing was written


@contextlib.contextmanager
def locked_beside(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """As `locked`, for a file or folder that appears as a whole: the lock stands beside it, in a folder that is made."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = contextlib.ExitStack()
        _hold(held, path.parent / f".{path.name}{LOCK}", what, alone=True)
    except OSError as error:
        raise write_error(path, error) from None
    with held:
        sweep(path.parent)
        yield


def _hold(held: contextlib.ExitStack, path: Path, what: str, alone: bool) -> None:
    """Takes a lock until ``held`` closes. Raises InputError where another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    file = held.enter_context(path.open("a+"))
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy(path.parent, what) from None
    except OSError:  # a file system without locks
        held.callback(discard, path)
        return
    if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
        raise _busy(
            path.parent, what
        )  # it was removed by the process that had it, and another one may have its own
    held.callback(_release, file, path)


def _release(file: Any, path: Path) -> None:
    """Removes the lock's file unless others hold it too."""
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)


def _busy(folder: Path, what: str) -> InputError:
    return InputError(
        f"{folder}: another {what} is writing there: wait for it, or choose another output folder"
    )


def claim(
    root: str | os.PathLike[str],
    note: str,
    wanted: Mapping[str, Any],
    folders: Collection[str],
    kind: str,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Makes ``folders`` in ``root`` and notes ``wanted``, as JSON, in ``root/note``: the folder now belongs to this run.

    kind: what the folder is, "synthetic world". A folder that holds nothing, or only what a claim that was cut short has
    left (empty folders, partial files), is free. defaults: settings that count where a note lacks them, as one of an earlier
    version does. Raises InputError where it holds something else, or another of its kind, and where it cannot be written to.
    """
    root = Path(root)
    path = root / note
    content = json.loads(json.dumps(wanted))  # as it comes back from the file: lists for tuples
    try:
        if not path.is_file():
            if root.exists() and not is_free(root) and not path.is_file():  # another run may have come first
                article = "an" if kind[0] in "aeiou" else "a"
                raise InputError(
                    f"{root}: is not empty and not {article} {kind}: choose an empty or new folder"
                )
            root.mkdir(parents=True, exist_ok=True)
            _note_first(path, (json.dumps(content, indent=1) + "\n").encode())
        _refuse_another(path, content, kind, json.loads(json.dumps(defaults or {})))
        for folder in folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(root, error, "cannot be written to") from None


def is_free(root: Path) -> bool:
    """Whether a folder holds nothing, or nothing but empty folders, partial files and locks."""
    if not root.is_dir():
        return False
    return all(p.is_dir() or is_partial(p.name) or p.name.startswith(LOCK) for p in root.rglob("*"))


def _note_first(path: Path, data: bytes) -> None:
    """Writes the note unless another run has just written its own: of two at once one wins."""
    with contextlib.suppress(FileExistsError):
        partial = new_partial(path.parent)
        try:
            partial.write_bytes(data)
            to_disk(partial)
            try:
                os.link(partial, path)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                os.replace(partial, path)
            to_disk(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def _refuse_another(path: Path, wanted: Mapping[str, Any], kind: str, defaults: Mapping[str, Any]) -> None:
    """Raises InputError unless the note, completed by the defaults, says what is wanted."""
    try:
        found = json.loads(decode(read_bytes(path, 1 << 24), str(path)))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path}: damaged: not the note of a {kind}: delete it or choose another folder")
    found = _completed(found, defaults)
    if found != wanted:
        raise InputError(
            f"{path}: this folder holds another {kind} ({differences(found, wanted)}): choose another folder"
        )


def _completed(found: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with those that are missing taken from the defaults."""
    return {**defaults, **found} | {
        key: _completed(found[key], inner)
        for key, inner in defaults.items()
        if isinstance(inner, dict) and isinstance(found.get(key), dict)
    }


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What differs between two nested settings, "seed 1 there, 2 given", the first four."""
    there, here = _flat(found), _flat(wanted)
    names = [k for k in {**here, **there} if there.get(k) != here.get(k)]
    return ", ".join(f"{k} {there.get(k)!r} there, {here.get(k)!r} given" for k in names[:4])


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested settings by dotted names."""
    leaves: dict[str, Any] = {}
    for key, content in tree.items():
        leaves |= _flat(content, f"{prefix}{key}.") if isinstance(content, dict) else {prefix + key: content}
    return leaves
