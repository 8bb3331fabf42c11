"""Folders and the files in them: which files count, whole files and whole folders, and output folders that belong to a command.

Which files count is one rule: the suffix in any case, hidden files (``._x.jpg`` of a Mac) skipped, everything else a stray that
is named once. What is written appears under its name complete or not at all, also when the power fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monolift.errors import InputError
from monolift.files.text import decode, read_bytes, reason_of

# --- which files count


@dataclass(frozen=True)
class Listed:
    """The files of a folder that count, and the names of those that do not."""

    folder: Path
    files: tuple[Path, ...]
    """In order of name."""
    strays: tuple[str, ...] = ()
    """Names of files with another suffix and of folders that bear one; hidden files are neither here nor there."""

    def by_stem(self, suffixes: Collection[str] = ()) -> dict[str, Path]:
        """The files by their names without suffix; of several with one stem, that whose suffix comes first in ``suffixes``."""
        rank = {suffix: k for k, suffix in enumerate(suffixes)}
        found: dict[str, Path] = {}
        for path in sorted(self.files, key=lambda p: (p.stem, rank.get(p.suffix.lower(), len(rank)))):
            found.setdefault(path.stem, path)
        return found

    def note(self) -> str:
        """One line about the strays, empty where there are none."""
        if not self.strays:
            return ""
        names = ", ".join(self.strays[:3]) + (", ..." if len(self.strays) > 3 else "")
        many = "file is" if len(self.strays) == 1 else "files are"
        return f"{self.folder}: {len(self.strays)} other {many} skipped ({names})"


def is_hidden(path: str | os.PathLike[str]) -> bool:
    """Whether a file is the system's own: names that begin with a dot, as ``._000007.jpg`` and ``.DS_Store``."""
    return Path(path).name.startswith(".")


def counts(path: Path, suffixes: Collection[str]) -> bool:
    """Whether a file counts: not hidden, one of the (lower-case) ``suffixes`` in any case, no folder.

    A link that leads nowhere counts: reading it names it, skipping it would lose it in silence.
    """
    return not is_hidden(path) and path.suffix.lower() in suffixes and not path.is_dir()


def listed(folder: str | os.PathLike[str], suffixes: Collection[str]) -> Listed:
    """The files of a folder by the one rule of which files count. Raises InputError where it is none or cannot be read."""
    folder = Path(folder)
    try:
        paths = sorted(p for p in folder.iterdir() if not is_hidden(p))
    except NotADirectoryError:
        raise InputError(f"{folder}: is a file: expected a folder") from None
    except (OSError, ValueError) as error:
        what = (
            "no such folder" if isinstance(error, FileNotFoundError) else f"cannot read: {reason_of(error)}"
        )
        raise InputError(f"{folder}: {what}") from None
    files = tuple(p for p in paths if counts(p, suffixes))
    strays = set(paths) - set(files)
    return Listed(
        folder,
        files,
        tuple(sorted(p.name for p in strays if p.suffix.lower() in suffixes or not p.is_dir())),
    )


def find_file(folder: str | os.PathLike[str], stem: str, suffixes: Iterable[str]) -> Path | None:
    """The file ``stem`` with one of the (lower-case) suffixes in any case, the first that exists; None where there is none."""
    try:
        for suffix in suffixes:
            for spelled in (
                suffix,
                suffix.upper(),
                suffix[:2].upper() + suffix[2:],
            ):  # without listing the folder
                path = Path(folder) / (stem + spelled)
                if path.is_file() or (path.is_symlink() and not path.is_dir()):
                    return path
    except (OSError, ValueError):  # a stem with a NUL, or too long for a name
        return None
    return None


def text_file(folder: str | os.PathLike[str], stem: str) -> Path:
    """``folder/STEM.txt``, or the file whose suffix is spelled in another case."""
    path = Path(folder) / f"{stem}.txt"
    try:
        return path if path.is_file() else find_file(folder, stem, (".txt",)) or path
    except (OSError, ValueError):
        return path


def dataset_root(
    path: str | os.PathLike[str],
    needs: Collection[str] = ("image_2", "label_2", "calib"),
    kind: str = "KITTI folder",
) -> Path:
    """``path`` or ``path/training``, the first that holds the folders ``needs``.

    Raises InputError that names what is missing.
    """
    root = Path(path)
    best: tuple[int, Path, list[str]] | None = None
    for folder in (root, root / "training"):
        missing = [name for name in needs if not (folder / name).is_dir()]
        if not missing:
            return folder
        if len(missing) < len(needs) and (best is None or len(missing) < best[0]):
            best = (len(missing), folder, missing)
    wanted = _listing(needs)
    if best is not None:
        raise InputError(f"{best[1]}: expected folders {wanted}; {', '.join(best[2])} missing")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder: expected a {kind} with {wanted} (here or in training/)")
    raise InputError(f"{root}: expected a {kind} with {wanted} (here or in training/)")


def _listing(names: Collection[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


# --- whole files


def write_atomically(
    path: str | os.PathLike[str], data: bytes | str, parents: bool = False, durable: bool = True
) -> None:
    """Writes a neighbour file and renames it: nobody ever sees half a file. Text is written as UTF-8.

    parents: makes the folder. durable: waits until the disk has it, so that a power failure leaves the old file or the new one;
        for files of a folder that is itself renamed when it is complete (`partial_folder`), once at the end is enough.
    Raises InputError when it cannot, and then leaves nothing behind.
    """
    with partial_file(path, parents, durable) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def partial_file(path: str | os.PathLike[str], parents: bool = False, durable: bool = True) -> Iterator[Path]:
    """A path to write to, renamed to ``path`` at the end of the block if nothing was raised: for writers that want a path.

    Its suffix is that of ``path``. OSError within the block becomes an InputError that names ``path``.
    """
    target = Path(path)
    try:
        if str(target).startswith(("/dev/", "/proc/")) or (target.exists() and not target.is_file()):
            if target.is_dir():
                raise InputError(f"{target}: is a folder: expected the name of a file to write")
            yield target  # a pipe or a terminal: there is nothing to rename
            return
        target = Path(os.path.realpath(target)) if target.is_symlink() else target
        if parents:
            target.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(target.parent, target.suffix)
        try:
            yield partial
            if durable:
                _to_disk(partial)
            os.replace(partial, target)
            if durable:
                _to_disk(target.parent)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot write: {reason_of(error)}") from None


_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_swept: set[Path] = set()


def _partial(folder: Path, suffix: str = "") -> Path:
    """A new hidden name in ``folder``, which tells the process that writes there; what killed ones left is removed, once."""
    if folder not in _swept:
        _swept.add(folder)
        _sweep(folder)
    return folder / f".{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.part{suffix}"


def _is_partial(name: str) -> bool:
    return name.startswith(".") and ".part" in name[1:]


def _sweep(folder: Path) -> None:
    """Removes partial files and folders of processes of this machine that no longer run."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f".{_HOST}-*.part*"):
            process = path.name.split("-")[1]
            if process.isdigit() and not _runs(int(process)):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, have reached the disk; where the system cannot say, goes on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in _REAL_FAULTS:
            raise
    finally:
        os.close(handle)


_REAL_FAULTS = (
    5,
    28,
    122,
)  # EIO, ENOSPC, EDQUOT: the data are not there; others say that fsync is not offered


# --- whole folders


def replace_folder(new: Path, folder: Path) -> None:
    """Puts a finished folder in the place of an old one. A kill in between leaves the old one as FOLDER.old."""
    old = folder.with_name(folder.name + ".old")
    for path in new.rglob("*"):
        _to_disk(path)
    if folder.exists():  # else FOLDER.old is all that a kill has left: it stays until the new one stands
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
    os.replace(new, folder)
    _to_disk(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def partial_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A new empty folder to fill, put in the place of ``folder`` at the end of the block if nothing was raised.

    OSError within the block becomes an InputError that names ``folder``.
    """
    target = Path(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(target.parent)
        try:
            partial.mkdir()
            yield partial
            replace_folder(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{target}: cannot write: {reason_of(error)}") from None


def claim(
    root: str | os.PathLike[str], note: str, wanted: Mapping[str, Any], folders: Collection[str], kind: str
) -> None:
    """Makes ``folders`` in ``root`` and notes ``wanted``, as JSON, in ``root/note``: the folder now belongs to this run.

    kind: what the folder is, "synthetic world". A folder that holds nothing, or only what a claim that was cut short has
    left (empty folders, partial files), is free. Raises InputError where it holds something else, or another of its kind,
    and where it cannot be written to.
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
        _refuse_another(path, content, kind)
        for folder in folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{root}: cannot be written to: {reason_of(error)}") from None


def is_free(root: Path) -> bool:
    """Whether a folder holds nothing, or nothing but empty folders and partial files."""
    if not root.is_dir():
        return False
    return all(p.is_dir() or _is_partial(p.name) for p in root.rglob("*"))


def _note_first(path: Path, data: bytes) -> None:
    """Writes the note unless another run has just written its own: of two at once one wins."""
    with contextlib.suppress(FileExistsError):
        partial = _partial(path.parent)
        try:
            partial.write_bytes(data)
            _to_disk(partial)
            try:
                os.link(partial, path)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                os.replace(partial, path)
            _to_disk(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def _refuse_another(path: Path, wanted: Mapping[str, Any], kind: str) -> None:
    """Raises InputError unless the note says what is wanted."""
    try:
        found = json.loads(decode(read_bytes(path, 1 << 24), str(path)))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path}: damaged: not the note of a {kind}: delete it or choose another folder")
    if found != wanted:
        there, here = _flat(found), _flat(wanted)
        names = [k for k in {**here, **there} if there.get(k) != here.get(k)]
        differ = ", ".join(f"{k} {there.get(k)!r} there, {here.get(k)!r} given" for k in names[:4])
        raise InputError(f"{path}: this folder holds another {kind} ({differ}): choose another folder")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested settings by dotted names."""
    leaves: dict[str, Any] = {}
    for key, content in tree.items():
        leaves |= _flat(content, f"{prefix}{key}.") if isinstance(content, dict) else {prefix + key: content}
    return leaves
