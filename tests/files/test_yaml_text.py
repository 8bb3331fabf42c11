"""YAML: the plain part, with bounds; bombs, tags and dates end in one named error or in text."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

from monolift.errors import InputError
from monolift.files import yaml_text
from monolift.files.yaml_text import parse_yaml, read_yaml

pytest.importorskip("yaml")

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "word, content",
    [
        ("1e3", 1000.0),
        ("1.5E-2", 0.015),
        (".5", 0.5),
        ("5.", 5.0),
        ("-12", -12),
        ("0640", 640),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("off", "off"),
        ("null", None),
        ("~", None),
        ("", None),
        ("-.inf", -math.inf),
        ("2001-13-13", "2001-13-13"),
        ("2001-01-01", "2001-01-01"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("whole", "whole"),
        ("[1, [2, {b: 3}]]", [1, [2, {"b": 3}]]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(word: str, content: Any) -> None:
    found = parse_yaml(f"a: {word}\nz: 1\n", "x")
    assert found == {"a": content, "z": 1} and type(found["a"]) is type(content)


def test_lists_of_mappings_several_lines_and_documents() -> None:
    text = "---\n---\nk:\n  rows: 3\n  data: [1, 0,\n         2.5]\nlist:\n- a: 1\n  b: |\n    x\n    y\n- 2\n---\nother: 1\n"
    assert parse_yaml(text, "x") == {
        "k": {"rows": 3, "data": [1, 0, 2.5]},
        "list": [{"a": 1, "b": "x\ny\n"}, 2],
    }
    assert parse_yaml("", "x") is None and parse_yaml("# nothing\n", "x") is None


def test_files_of_opencv() -> None:
    text = "%YAML:1.0\n---\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   dt: d\n   data: [ 7.2e+02, 0., 609. ]\n"
    assert parse_yaml(text, "x") == {"camera_matrix": {"rows": 3, "dt": "d", "data": [720.0, 0.0, 609.0]}}


@pytest.mark.parametrize(
    "text, reason",
    [
        (BOMB, r"x:2: an alias \(\*a\)"),
        ("a: &a {b: *a}\n", "an alias"),
        ("base: &b {x: 1}\nc:\n  <<: *b\n", "an alias"),
        ("[" * 3000, "more than 32 deep"),
        ("- " * 3000, "deep"),
        ("{a: " * 300, "deep"),
        ("a: !!bool maybe\n", r"a tag \(tag:yaml.org,2002:bool\)"),
        ("a: !!int ''\n", "a tag"),
        ("a: !!python/object/apply:os.system ['true']\n", "a tag"),
        ("a: !!timestamp 2001-13-13\n", "a tag"),
        ("a: " + "9" * 400 + "\n", "more than 300 digits"),
        ("a: [1, 2\n", "not YAML"),
        ("a: 1\na: 2\n", "x:2: a comes a second time"),
        ("? [1, 2]\n: 3\n", "expected text as a key"),
        ("a: \x07\n", "not YAML"),
        ("\ttab: 1\n", "not YAML"),
        ("a: 1".encode("utf-16"), "got UTF-16"),
        (b"a: \xff\n", "expected UTF-8"),
    ],
)
def test_refuses(text: str | bytes, reason: str) -> None:
    began = time.process_time()
    with pytest.raises(InputError, match=f"^x:?.*{reason.removeprefix('x')}"):
        parse_yaml(text, "x")
    assert time.process_time() - began < 30


def test_reads_files_with_a_mark_and_refuses_large_ones(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": 1, "b": 2}
    (tmp_path / "b.yaml").write_bytes(b"#" * (5 << 20))
    with pytest.raises(InputError, match="at most"):
        read_yaml(tmp_path / "b.yaml")


@pytest.mark.parametrize("name", ["bomb.yaml", "date.yaml", "roi.yaml"])
def test_hostile_files_end(shared: Path, name: str) -> None:
    path = shared / "cases" / "hostile" / name
    if not path.exists():
        pytest.skip(f"no {name}")
    try:
        assert isinstance(read_yaml(path), dict)
    except InputError as error:
        assert name in str(error)


def test_refuses_too_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert yaml_text.MOST_ITEMS == 200_000
    monkeypatch.setattr(yaml_text, "MOST_ITEMS", 2_000)  # the bound itself takes seconds to reach
    assert len(parse_yaml("- 1\n" * 1_999, "x.yaml")) == 1_999
    with pytest.raises(InputError, match="at most 2,000 values"):
        parse_yaml("- 1\n" * 2_001, "x.yaml")
