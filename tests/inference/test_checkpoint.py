"""Checkpoints: everything comes back, nothing half-written is ever read, nothing is unpickled."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from monolift.errors import InputError
from monolift.files import folders
from monolift.geometry import Camera
from monolift.inference import checkpoint
from monolift.methods.smoke import Smoke, SmokeConfig

CONFIG = SmokeConfig(
    classes=("Car", "Tram"),
    sizes=((3.9, 1.5, 1.6), (16.1, 3.5, 2.5)),
    head_channels=32,
    focal=512.25,
    input_width=128,
    input_height=64,
)


@pytest.fixture(scope="module")
def model() -> Smoke:
    torch.manual_seed(0)
    made = Smoke(CONFIG)
    made(torch.randn(2, 3, 64, 128))  # in training mode: running statistics leave their initial values
    return made.eval()


@pytest.fixture
def folder(model: Smoke, tmp_path: Path) -> Path:
    return checkpoint.save(
        tmp_path / "run" / "best", model, {"licence": "CC BY-NC-SA 3.0", "ap": {"moderate": 8.5}}
    )


def fault(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        checkpoint.load(folder)
    return str(caught.value)


def test_weights_config_and_card_come_back(model: Smoke, folder: Path) -> None:
    again = checkpoint.load(folder)
    assert again.config == CONFIG
    assert again.classes == ("Car", "Tram")
    assert not again.training
    own, other = model.state_dict(), again.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[k], other[k]) for k in own)
    images = torch.randn(1, 3, 64, 128)
    with torch.no_grad():
        assert all(torch.equal(v, again(images)[k]) for k, v in model(images).items())
    assert checkpoint.read_card(folder) == {"licence": "CC BY-NC-SA 3.0", "ap": {"moderate": 8.5}}
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    content = json.loads((folder / "config.json").read_text())
    assert (content["format"], content["method"]) == (1, "smoke")
    assert content["config"]["focal"] == 512.25


def test_half_precision_is_half_the_size_and_detects_the_same(
    model: Smoke, folder: Path, tmp_path: Path
) -> None:
    small = checkpoint.save(tmp_path / "small", model, half=True)
    size, full = ((f / "model.safetensors").stat().st_size for f in (small, folder))
    assert size < 0.55 * full
    again = checkpoint.load(small)
    there = model.state_dict()
    assert all(v.dtype == there[k].dtype for k, v in again.state_dict().items())
    images = torch.randn(1, 3, 64, 128)
    with torch.no_grad():
        a, b = model(images), again(images)
    assert all(torch.allclose(a[k], b[k], atol=0.02) for k in a)
    camera = Camera.stack([Camera(100, 100, 64, 32, width=128, height=64)])
    assert len(model.decode(a, camera)[0]) == pytest.approx(len(again.decode(b, camera)[0]), abs=5)


def test_a_configuration_of_another_size_is_not_built(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["config"]["head_channels"] = 65_536
    (folder / "config.json").write_text(json.dumps(content))
    start = time.perf_counter()
    assert "do not fit the configuration beside it, which asks for more than" in fault(folder)
    assert time.perf_counter() - start < 10
    for channels, message in (
        (1_000_000, "head_channels must be at least 1 and at most 65536, got 1000000"),
        (36, "weights do not fit the configuration beside it, first "),
        (33, "config.json: "),
    ):
        content["config"]["head_channels"] = channels
        (folder / "config.json").write_text(json.dumps(content))
        assert message in fault(folder)


def test_the_card_is_read_without_torch(folder: Path) -> None:
    code = (
        "import sys; from monolift.inference.checkpoint import read_card; print(read_card(sys.argv[1])['licence']); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "CC BY-NC-SA 3.0"


def test_saving_again_replaces_the_whole_folder(model: Smoke, folder: Path) -> None:
    (folder / "stray.txt").write_text("of the old one")
    checkpoint.save(folder, model, {"epoch": 2})
    assert checkpoint.read_card(folder) == {"epoch": 2}
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert [p.name for p in folder.parent.iterdir()] == ["best"]


def test_a_save_that_dies_leaves_the_old_checkpoint(
    model: Smoke, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies while writing the weights, and between the two renames of a system that cannot swap folders in one step."""
    import safetensors.torch

    def power_cut(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(safetensors.torch, "save_file", power_cut)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(folder, model, {"epoch": 2})
    assert checkpoint.read_card(folder)["licence"]
    checkpoint.load(folder)

    real, calls = os.replace, []

    def second_rename_dies(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as m:
        m.setattr(folders, "_swap", lambda *_: False)
        m.setattr(os, "replace", second_rename_dies)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(folder, model, {"epoch": 3})
    # the old one stands beside, complete, and so it does while the next save is under way
    old = folder.with_name(".best.old")
    assert checkpoint.load(old).config == CONFIG
    with monkeypatch.context() as m:
        m.setattr(os, "replace", power_cut)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(folder, model, {"epoch": 4})
    assert checkpoint.load(old).config == CONFIG
    checkpoint.save(folder, model, {"epoch": 5})
    assert checkpoint.read_card(folder) == {"epoch": 5}
    assert [p.name for p in folder.parent.iterdir()] == ["best"]


# -- bad input --------------------------------------------------------------------------------------------------------


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("changes, words", [
    ({"format": 2}, "expected checkpoint format 1, got 2"),
    ({"format": None}, "expected checkpoint format 1, got None"),
    ({"method": "yolo"}, "method must be one of smoke"),
    ({"config": {"colour": "red"}}, "SmokeConfig has no colour"),
    ({"config": {"backbone": "nano", "radius": "huge"}}, "radius must be one of"),
    ({"config": {"sizes": [[4, 1.5, 1.6]]}}, "one (l, h, w) for each"),
    ({"config": [1, 2]}, "config.json: expected config to hold named options, got [1, 2]"),
    ({"method": ["smoke"]}, "config.json: method: expected"),
    ({"card": "good"}, "config.json: card: expected an object"),
    ({"card": {"score": "high"}}, "config.json: card: score: expected"),
    ({"card": {"score": 25}}, "config.json: card: score: expected"),
    ({"config": {"classes": 5}}, "config.json: classes: expected list of names like ('Car', 'Pedestrian', 'Cyclist'), got 5"),
    ({"config": {"head_channels": "many"}}, "config.json: head_channels: expected int like 64, got 'many'"),
    ({"config": {"sizes": [[1, 2, "x"]]}}, "config.json: sizes: expected"),
    ({"config": {"boxes2d": 1}}, "config.json: boxes2d: expected bool like True, got 1"),
])  # fmt: skip
def test_descriptions_that_cannot_be_used(folder: Path, changes: dict[str, Any], words: str) -> None:
    rewrite(folder, **changes)
    assert words in fault(folder)


def test_files_that_are_no_description(folder: Path, tmp_path: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({"architectures": ["BertModel"]}))  # another program's config.json
    assert "expected checkpoint format 1, got None" in fault(folder)
    for text in ("{", "[]", "null", ""):
        path.write_text(text)
        assert "config.json" in fault(folder)
    path.write_bytes(b"\xff\xfe\x00")
    assert "config.json" in fault(folder)
    rewritten = {"format": 1, "config": {}}
    path.write_text(json.dumps(rewritten))
    assert "expected the key 'method'" in fault(folder)
    path.unlink()
    assert "not a checkpoint: expected a folder with config.json and model.safetensors" in fault(folder)
    assert "not a checkpoint" in fault(tmp_path / "nowhere")


def test_weights_that_cannot_be_used(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for content in (b"", whole[:1000], whole[:-10], b"x" * 5000):
        path.write_bytes(content)
        assert "model.safetensors: not a readable weight file" in fault(folder)
    path.write_bytes(whole)
    rewrite(
        folder, config={**json.loads((folder / "config.json").read_text())["config"], "head_channels": 64}
    )
    assert "do not fit the configuration beside it" in fault(folder)
    path.unlink()
    assert "model.safetensors: missing" in fault(folder)


class Bomb:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_nothing_is_unpickled(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    assert "not a readable weight file" in fault(folder)
    assert not (tmp_path / "exploded").exists()
