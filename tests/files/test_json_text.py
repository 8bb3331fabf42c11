"""JSON from anywhere: bounds, and one named error for each kind of wrong value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monolift.errors import InputError
from monolift.files import json_text as door

MANY = "9" * 400


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_reads_json(tmp_path: Path, mark: bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(mark + '{"a": [1, 2.5, "\u00fc"]}\r\n'.encode())
    assert door.read_json(file) == {"a": [1, 2.5, "ü"]}


@pytest.mark.parametrize(
    "text, reason",
    [
        ("[" * 100_000, "more than 64 deep"),
        ("[" * 80 + "]" * 80, "more than 64 deep"),
        ('{"a":' * 80 + "1" + "}" * 80, "more than 64 deep"),
        (f'{{"a": {MANY}}}', "more than 300 digits"),
        (f'{{"a": 1.{MANY}}}', "more than 300 digits"),
        ('{"a": 1', "not JSON"),
        ("", "not JSON"),
        ('{"a": \x00}', "NUL bytes"),
        (b'{"a": "\xff"}', "expected UTF-8 text"),
        ('{"a": 1}'.encode("utf-16"), "got UTF-16"),
    ],
)
def test_refuses_what_is_beyond_its_bounds(text: str | bytes, reason: str) -> None:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(InputError, match=rf"^a\.json.*{reason}"):
        door.parse_json(data, "a.json")


def test_brackets_and_digits_within_text_do_not_count() -> None:
    content = {"a": "[" * 500 + '"' + "\\", "b": MANY, "c": [[1]] * 100}
    assert door.parse_json(json.dumps(content), "x") == content


WRONG: list[tuple[Any, Any]] = [
    (door.number_of, v) for v in ("1", None, True, [1], {}, float("nan"), float("inf"), 10**400)
]
WRONG += [(door.integer_of, v) for v in ("1", None, True, 1.5, float("nan"), float("inf"), [])]
WRONG += [(door.text_value, v) for v in (1, None, "", [])]
WRONG += [(door.flag_of, v) for v in ("true", 2, None, [], float("nan"))]
WRONG += [(door.identifier, v) for v in ([1], {}, None, "", 1.5, True)]
WRONG += [(door.list_of, v) for v in ({}, None, "ab")]
WRONG += [(door.object_of, v) for v in ([], None, "ab")]


@pytest.mark.parametrize("read, given", WRONG)
def test_wrong_values_are_one_named_error(read: Any, given: Any) -> None:
    with pytest.raises(InputError, match=r"^a\.json: rows\[3\]: f: expected"):
        read(given, "a.json: rows[3]: f")


def test_right_values() -> None:
    assert door.number_of(3, "x") == 3.0 and door.integer_of(3.0, "x") == 3
    assert door.flag_of(1, "x") is True and door.flag_of(False, "x") is False
    assert door.identifier("a", "x") == "a" and door.identifier(7.0, "x") == 7
    assert door.numbers(2, 1, "x") == [2.0] and door.numbers([1, 2], None, "x") == [1.0, 2.0]


def test_bounds_are_named() -> None:
    with pytest.raises(InputError, match="a finite number from 0 to 1, got 2"):
        door.number_of(2, "x", least=0, most=1)
    with pytest.raises(InputError, match="a whole number of at least 1, got 0"):
        door.integer_of(0, "x", least=1)


def test_optional_fields_may_be_null_or_absent_but_not_wrong() -> None:
    for row in ({}, {"cut": None}):
        assert door.optional(row, "cut", door.number_of, "x") is None
        assert door.optional(row, "cut", door.number_of, "x", 0.5) == 0.5
    assert door.optional({"cut": 1}, "cut", door.number_of, "x") == 1.0
    with pytest.raises(InputError, match="x: cut: expected a finite number, got 'much'"):
        door.optional({"cut": "much"}, "cut", door.number_of, "x")


@pytest.mark.parametrize(
    "content", [None, [], {"images": None}, {"images": {}}, {"images": [None]}, {"images": ["x"]}]
)
def test_tables_are_lists_of_objects(content: Any) -> None:
    with pytest.raises(InputError, match=r"^a\.json: (expected images|images\[0\])"):
        door.table(content, "images", "a.json")


def test_missing_keys_are_named() -> None:
    with pytest.raises(InputError, match=r"x: expected the key 'id', got a, b$"):
        door.value({"a": 1, "b": 2}, "id", "x")
    with pytest.raises(InputError, match="x: expected an object with the key 'id', got 3"):
        door.value(3, "id", "x")


def test_values_in_messages_are_short() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    for given in ("x" * 10**6, [1] * 10**6, deep, 10**4000, {"a": deep}):
        assert len(door.show_value(given)) < 300


def test_writes_for_people_and_for_programs(tmp_path: Path) -> None:
    door.write_json(tmp_path / "new" / "a.json", {"a": [1, 2], "b": "[1,\n2]"})
    assert (tmp_path / "new" / "a.json").read_text() == '{\n  "a": [1, 2],\n  "b": "[1,\\n2]"\n}\n'
    door.write_json(tmp_path / "b.json", {"a": [1, 2]}, compact=True)
    assert (tmp_path / "b.json").read_text() == '{"a": [1, 2]}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        door.write_json(tmp_path / "c.json", [float("nan")])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.json", "new"]
