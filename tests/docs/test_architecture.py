"""The import contract, the README's tree and the architecture page say the same thing."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "monolift"

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")


def contract() -> list[set[str]]:
    """The floors of the import contract, from the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (floors,) = (c for c in settings["tool"]["importlinter"]["contracts"] if c["name"] == "Floors")
    assert not any(":" in layer for layer in floors["layers"]), (
        "':' lumps packages that may import one another"
    )
    return [set(layer.split(" | ")) for layer in floors["layers"]]


def test_every_module_has_a_floor() -> None:
    there = {p.stem for p in PACKAGE.glob("*.py")} | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert set().union(*contract()) == there - {"__init__"}


def test_the_page_has_the_contracts_floors_in_its_order() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.split("## Floors")[1].split("\n## ")[0]
    rows = [
        set(re.findall(r"`([a-z_]+)`", row.split("|")[2]))
        for row in table.splitlines()
        if row.startswith("| ")
    ]
    page_floors = [row for row in rows if row]
    merged: list[set[str]] = []
    for floor in contract():  # the page has the two files of the program on one line
        if merged and floor <= {"cli", "__main__"}:
            merged[-1] |= floor
        else:
            merged.append(floor)
    assert page_floors == merged


def test_the_readmes_tree_runs_from_the_lowest_floor_to_the_highest() -> None:
    tree = (ROOT / "README.md").read_text().split("src/monolift/\n")[1].split("tests/")[0]
    named: list[str] = []
    for line in tree.splitlines():
        words = re.match(r"  ((?:[a-z_0-9]+(?:/|\.py)\s*)+)", line)
        assert words, line
        named += [word.rstrip("/").removesuffix(".py") for word in words[1].split()]
    named.remove("zoo")  # no code
    height = {name: k for k, floor in enumerate(reversed(contract())) for name in floor}
    assert sorted(named) == sorted(height)
    assert [height[name] for name in named] == sorted(height.values())


def test_no_module_bears_the_name_of_a_public_function() -> None:
    import monolift

    there = {p.stem for p in PACKAGE.glob("*.py")} | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert not there & set(monolift.__all__)


def test_methods_and_programs_do_not_probe() -> None:
    """Programs use the contract's members; none asks an object what it happens to have."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("hasattr", "getattr")
            ):
                target = ast.unparse(node.args[0])
                if re.search(r"detector|method|backbone|network|model$", target):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    assert not found
