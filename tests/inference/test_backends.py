"""Which backend is chosen, and where the exported file of a checkpoint is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from monolift.cli import main
from monolift.errors import InputError, MissingExtraError
from monolift.inference import backends, zoo
from monolift.inference.backends import WORTH_EXPORTING, cache_folder, choose, exported_file


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MONOLIFT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def installed(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    monkeypatch.setattr(backends, "_installed", lambda module: module in modules)


def test_auto_takes_an_exported_file_that_is_there(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "onnxruntime")
    assert choose("auto", checkpoint, "cpu", 1) == "torch"
    file = exported_file(checkpoint)
    file.parent.mkdir()
    file.touch()
    assert choose("auto", checkpoint, "cpu", 1) == "onnx"
    assert choose("auto", checkpoint, "cuda:0", 1) == "torch"
    assert choose("torch", checkpoint, "cpu", 1) == "torch"
    installed(monkeypatch)
    assert choose("auto", checkpoint, "cpu", 1) == "torch"


def test_auto_exports_for_many_images_where_it_can(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "onnxruntime")
    assert choose("auto", checkpoint, "cpu", WORTH_EXPORTING) == "torch"
    installed(monkeypatch, "onnxruntime", "onnx", "onnxscript")
    assert choose("auto", checkpoint, "cpu", WORTH_EXPORTING) == "onnx"
    assert choose("auto", checkpoint, "cpu", WORTH_EXPORTING - 1) == "torch"


def test_other_weights_or_settings_have_another_file(checkpoint: Path) -> None:
    files = {exported_file(checkpoint)}
    (checkpoint / "config.json").write_text('{"a": 1}')
    files.add(exported_file(checkpoint))
    (checkpoint / "model.safetensors").write_bytes(b"others")
    files.add(exported_file(checkpoint))
    assert len(files) == 3 and all(file.parent == cache_folder() for file in files)


def test_what_is_missing_is_named(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    with pytest.raises(MissingExtraError, match=r"monolift\[openvino\]"):
        choose("openvino", checkpoint, "cpu", 1)
    with pytest.raises(InputError, match="--backend: expected auto, torch, onnx, openvino, got 'tensorrt'"):
        choose("tensorrt", checkpoint, "cpu", 1)
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: cannot read"):
        exported_file(checkpoint)


def test_detect_prints_its_backend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(zoo.EXAMPLE / "example.jpg")
    given = ["detect", image, "--fov", "80", "--save", "none"]
    assert main([*given, "--backend", "nvidia"]) == 2
    assert main([*given, "--backend", "torch", "--onnx", "x.onnx"]) == 2
    assert main([*given, "--onnx", str(tmp_path / "no.onnx")]) == 2
    assert "no.onnx: no such file" in capsys.readouterr().err
    assert main(given) == 0
    assert "; backend torch" in capsys.readouterr().out
