"""Text files: byte order marks, line ends, encodings, bounds."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from monolift.errors import InputError
from monolift.files.text import decode, number, read_bytes, read_text, split_rows

BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", BOM])
def test_rows_do_not_depend_on_mark_and_line_ends(mark: bytes, end: bytes) -> None:
    text = mark + b"Car 1" + end + end + b"Van 2"
    assert split_rows(text) == [(1, [b"Car", b"1"]), (3, [b"Van", b"2"])]
    assert decode(text, "x").split() == ["Car", "1", "Van", "2"]


def test_joined_files_have_a_mark_each() -> None:
    assert split_rows(BOM + b"a\n" + BOM + b"b\n") == [(1, [b"a"]), (2, [b"b"])]
    assert split_rows("\ufeffa") == [(1, [b"a"])]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("Car 0.00 0 1.5 300 100 400 200\n".encode(encoding))
    name = "UTF-32" if encoding == "utf-32" else "UTF-16" if encoding != "utf-32" else ""
    for read in (read_text, lambda path: split_rows(read_bytes(path), path.name)):
        with pytest.raises(InputError, match=rf"a\.txt: expected UTF-8 text, got {name}"):
            read(file)


def test_nul_bytes_and_foreign_bytes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="x: expected UTF-8 text, got NUL bytes"):
        split_rows(b"Car 0.00 0 1.5\0 and so on", "x")
    with pytest.raises(InputError, match=r"x:2: expected UTF-8 text, got bytes b'\\xff"):
        decode(b"a\n\xff\xfe b", "x")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", "a\0b"):
        with pytest.raises(InputError, match="cannot read"):
            read_bytes(path)
    (tmp_path / "large").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="at most 99 bytes"):
        read_bytes(tmp_path / "large", most=99)
    assert len(read_bytes(tmp_path / "large", most=100)) == 100
    with pytest.raises(InputError, match="at most 1,000 bytes"):
        read_bytes("/dev/zero", most=1000)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    """``--split <(ls)`` of a shell."""
    os.mkfifo(tmp_path / "pipe")
    text = b"000001\n" * 50_000
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(text,))
    writer.start()
    assert read_bytes(tmp_path / "pipe") == text
    writer.join()


@pytest.mark.parametrize("word", [b"nan", b"1_000", b"inf", b"1e999", b"", b"x" * 100])
def test_numbers_are_finite(word: bytes) -> None:
    with pytest.raises(InputError, match="x: expected a finite number"):
        number(word, "x")
