"""Folders and the files in them: which files count, whole files and whole folders. (Who may write: `output_folder`.)

Which files count is one rule: the suffix in any case, hidden files (``._x.jpg`` of a Mac) skipped, everything else a stray that
is named once. What is written appears under its name complete or not at all, also when the power fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import socket
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from monolift.errors import DiskError, InputError
from monolift.files.text import reason_of

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

    Raises:
        InputError: that names what is missing.
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

    Raises InputError when it cannot (DiskError where the disk is full), and then leaves nothing behind.

    Args:
        parents: makes the folder.
        durable: waits until the disk has it, so that a power failure leaves the old file or the new one; for files of a
            folder that is itself renamed when it is complete (`partial_folder`), once at the end is enough.
    """
    with partial_file(path, parents, durable) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def partial_file(path: str | os.PathLike[str], parents: bool = False, durable: bool = True) -> Iterator[Path]:
    """A path to write to, renamed to ``path`` at the end of the block if nothing was raised: for writers that want a path.

    Its suffix is that of ``path``. OSError within the block becomes an InputError that names ``path``, DiskError where the disk
    is full.
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
        partial = new_partial(target.parent, target.suffix)
        try:
            yield partial
            if durable:
                to_disk(partial)
            os.replace(partial, target)
            if durable:
                to_disk(target.parent)
        finally:
            _mine.discard(partial.name)
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise write_error(path, error) from None


DISK_FAULTS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The data are not there, whoever asks; other errors are of a path that cannot be written to."""


def write_error(path: str | os.PathLike[str], error: Exception, what: str = "cannot write") -> InputError:
    """The InputError of a path that could not be written, a DiskError where the disk is full or broken."""
    kind = DiskError if isinstance(error, OSError) and error.errno in DISK_FAULTS else InputError
    return kind(f"{path}: {what}: {reason_of(error)}")


_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_PARTIAL = re.compile(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.part")
_swept: set[Path] = set()
_mine: set[str] = set()


def new_partial(folder: Path, suffix: str = "") -> Path:
    """A new hidden name in ``folder``, which tells the process that writes there; what killed ones left is removed, once."""
    if folder not in _swept:
        _swept.add(folder)
        sweep(folder)
    path = folder / f".{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.part{suffix}"
    _mine.add(path.name)
    return path


def is_partial(name: str) -> bool:
    """Whether a name is that of something unfinished."""
    return _PARTIAL.match(name) is not None


def sweep(folder: Path, alone: bool = False) -> None:
    """Removes unfinished files and folders that killed processes of this machine have left in ``folder``.

    Args:
        alone: nobody else writes there. Then what other machines have left goes too (a container is another machine each
            time), and the folders below are swept.
    """
    with contextlib.suppress(OSError):
        for path in folder.rglob(".*.part*") if alone else folder.glob(".*.part*"):
            if (found := _PARTIAL.match(path.name)) and path.name not in _mine:
                host, process = found[1], int(found[2])
                if (alone and process == os.getpid()) or (not _runs(process) if host == _HOST else alone):
                    discard(path)


def discard(path: Path) -> None:
    """Removes a file or a folder with all that is in it, or as much of it as can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, have reached the disk; where the system cannot say, goes on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in DISK_FAULTS:
            raise
    finally:
        os.close(handle)


# --- whole folders


def check_new(folder: Path) -> None:
    """Raises InputError unless there is nothing under this name, or an empty folder."""
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise write_error(folder, error, "cannot be written to") from None
    if taken:
        raise InputError(f"{folder}: already exists and is not overwritten: expected a new or empty folder")


def replace_folder(new: Path, folder: Path, keep: bool = False) -> None:
    """Puts a finished folder in the place of an old one. Where the system can swap two folders there is one at any moment.

    Args:
        keep: the old one stays as FOLDER.old, in the place of an older one; otherwise it goes, and a FOLDER.old, which is
            the user's, stays. Where the system cannot swap, a kill in between leaves the old one as FOLDER.old, or as
            .FOLDER.old without ``keep``: `recover` finds both.
    """
    for path in (new, *new.rglob("*")):
        to_disk(path)
    old = folder.with_name(f"{folder.name}.old" if keep else f".{folder.name}.old")
    if not folder.exists():  # else the old one is all that a kill has left: it stays until the new one stands
        os.replace(new, folder)
        to_disk(folder.parent)
        if not keep:
            remove_folder(old)
        return
    if _swap(new, folder):  # now ``new`` is the old one
        to_disk(folder.parent)
        if keep and not (old.exists() and _swap(new, old)):
            remove_folder(old)
            os.replace(new, old)
        remove_folder(new)
        return
    remove_folder(old)
    os.replace(folder, old)
    os.replace(new, folder)
    to_disk(folder.parent)
    if not keep:
        remove_folder(old)


def recover(folder: Path) -> None:
    """Gives a folder its name back where `replace_folder` was killed between taking away the old one and placing the new."""
    for name in (f".{folder.name}.old", f"{folder.name}.old"):
        old = folder.with_name(name)
        if old.is_dir() and not folder.exists():
            os.replace(old, folder)


def remove_folder(folder: Path) -> None:
    """Removes a folder; a kill leaves all of it or an unfinished one, never half of it under its name."""
    if not is_partial(folder.name) and folder.is_dir():
        hidden = new_partial(folder.parent)
        os.replace(folder, hidden)
        folder = hidden
    shutil.rmtree(folder, ignore_errors=True)
    _mine.discard(folder.name)


def _swap(one: Path, other: Path) -> bool:
    """Exchanges two names in one step, where the system and the file system can; returns whether they are exchanged."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        system = ctypes.CDLL(None, use_errno=True)
        here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux
        return system.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
    return False


@contextlib.contextmanager
def partial_folder(folder: str | os.PathLike[str], keep: bool = False) -> Iterator[Path]:
    """A new empty folder to fill, put in the place of ``folder`` at the end of the block if nothing was raised.

    Args:
        keep: as of `replace_folder`. OSError within the block becomes an InputError that names ``folder``.
    """
    target = Path(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = new_partial(target.parent)
        try:
            partial.mkdir()
            yield partial
            replace_folder(partial, target, keep)
        finally:
            _mine.discard(partial.name)
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise write_error(target, error) from None


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder beside an output for what is needed on the way to it; gone after the block (a killed one is swept)."""
    folder = new_partial(parent)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        _mine.discard(folder.name)
        shutil.rmtree(folder, ignore_errors=True)
