"""The notebooks are clean, install monolift themselves, and run from the first cell to the last."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
LONGEST = 120  # seconds for a cell; a hang is cut, a slow machine is not
# As written, but less of it: the test runs the cells, the tutorial has the figures of the whole.
SMALLER = {
    "--images 80 --width 640 --height 192": "--images 10 --width 320 --height 96",
    "--set epochs=6": "--set epochs=1",
    "--images 16 --width 832 --height 256": "--images 4 --width 416 --height 128",
    "--bootstrap 100": "--bootstrap 10",
}


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["evaluate_compare", "own_image", "train_small"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_clean(path: Path) -> None:
    """No outputs, no absolute paths, a Colab badge, and the installation first."""
    code = cells(path, "code")
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert "colab.research.google.com" in "".join(cells(path, "markdown")[0]["source"])
    assert "%pip install" in "".join(code[0]["source"])
    for cell in code:
        assert not re.search(r"""["' =](/(home|root|work|tmp|content)/)""", "".join(cell["source"]))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("installed", [True, False])
def test_the_first_cell_installs_an_upload_and_only_where_monolift_is_missing(
    path: Path, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputtransformer = pytest.importorskip("IPython.core.inputtransformer2")
    ran: list[tuple[str, str]] = []
    shell = SimpleNamespace(run_line_magic=lambda name, line, **_: ran.append((name, line)))
    colab = ModuleType("google.colab")
    colab.files = SimpleNamespace(upload=lambda: {"monolift.zip": b""})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "google", ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    code = inputtransformer.TransformerManager().transform_cell("".join(cells(path, "code")[0]["source"]))
    names: dict[str, Any] = {"get_ipython": lambda: shell}
    exec(code, names)
    assert ran == ([] if installed else [("pip", 'install -q "$SOURCE"')])
    assert installed or names["SOURCE"] == "monolift.zip"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    programs = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
    )
    monkeypatch.setenv("PATH", programs)
    text = path.read_text()
    for written, less in SMALLER.items():
        text = text.replace(written, less)
    notebook = nbformat.reads(text, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=10 * LONGEST, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert shown and not any(output.output_type == "error" for output in shown)
