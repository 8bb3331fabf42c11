"""The four codecs side by side: one pair of names, boxes and numbers alone, each read at once."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import monolift.methods

ROOT = Path(monolift.methods.__file__).parent
CODECS = {"smoke": "SmokeCodec", "ss3d": "SS3DCodec", "roi10d": "ROI10DCodec", "monodr": "MonoDRCodec"}
LONGEST = 150  # lines


@pytest.mark.parametrize("method", CODECS)
def test_a_codec_knows_boxes_and_numbers_alone(method: str) -> None:
    path = ROOT / method / "codec.py"
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST
    imported = [node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    others = ("monolift.data", "monolift.nn", "monolift.augment")
    assert not [name for name in imported if name.startswith(others)], (
        "samples, maps and images belong elsewhere"
    )


@pytest.mark.parametrize("method", CODECS)
def test_a_codec_has_the_two_names_of_the_inverse_pair(method: str) -> None:
    codec = getattr(importlib.import_module(f"monolift.methods.{method}.codec"), CODECS[method])
    for name in ("encode", "decode"):
        assert getattr(codec, name).__doc__, f"{method} {name}"
    assert ast.get_docstring(ast.parse((ROOT / method / "codec.py").read_text()))


@pytest.mark.parametrize("method", [name for name in CODECS if name != "monodr"])
def test_targets_and_detections_have_modules_of_their_own(method: str) -> None:
    for part in ("__init__", "config", "network", "codec", "assign", "loss", "decode"):
        assert (ROOT / method / f"{part}.py").is_file(), part
    network = (ROOT / method / "network.py").read_text()
    assert "monolift.geometry" not in network  # it knows no boxes
