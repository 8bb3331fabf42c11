"""The notebooks are clean, install monolift themselves, and run from the first cell to the last."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
LONGEST = 120  # seconds for a cell; a hang is cut, a slow machine is not


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
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=10 * LONGEST, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert shown and not any(output.output_type == "error" for output in shown)
