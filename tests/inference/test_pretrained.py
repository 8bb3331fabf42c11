"""Models on disk in the Hub's layout, and what never happens without being asked for: a download."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from monolift.cli import main
from monolift.errors import InputError, MissingExtraError
from monolift.inference import checkpoint
from monolift.inference import zoo as model_zoo
from monolift.inference.model import Model
from monolift.methods.smoke import Smoke, SmokeConfig
from monolift.methods.smoke.config import Quirks


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    config = SmokeConfig(backbone="nano", head_channels=32, input_width=128, input_height=64)
    return Model(
        Smoke(config).eval(), "tiny", {"score": 0.3, "training": {"data": ["KITTI"], "split": "train.txt"}}
    )


def test_everything_travels_in_the_folder(model: Model, tmp_path: Path) -> None:
    folder = model.save_pretrained(tmp_path / "tiny")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    again = Model.from_pretrained(folder)
    assert again.classes == model.classes and again.score == 0.3 and again.name == "tiny"
    own, other = model.detector.state_dict(), again.detector.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(own[k], other[k].cpu()) for k in own)
    content = json.loads((folder / "config.json").read_text())
    assert content["config"]["input_width"] == 128 and content["config"]["classes"] == list(model.classes)
    assert content["card"]["training"]["split"] == "train.txt"
    import monolift

    assert content["made_by"]["monolift"] == monolift.__version__
    root = Path(monolift.__file__).resolve().parents[2]
    if (root / ".git").exists():
        assert len(content["made_by"]["commit"].removesuffix("-dirty")) == 40
    # ImageNet's statistics, as the backbones were trained: (pixel / 255 - mean) / deviation
    pixels = content["preprocessing"]
    assert pixels["order"] == [0, 1, 2]
    assert pixels["scale"] == pytest.approx([1 / 255 / s for s in (0.229, 0.224, 0.225)], rel=1e-5)
    assert pixels["offset"] == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rel=1e-5)
    readme = (folder / "README.md").read_text()
    assert readme.startswith("---\nlibrary_name: monolift\n") and "train.txt" in readme


def test_preprocessing_says_the_order_of_the_colours() -> None:
    config = SmokeConfig(
        backbone="nano", head_channels=32, input_width=128, input_height=64, quirks=Quirks(bgr=True)
    )
    assert checkpoint.preprocessing(Smoke(config))["order"] == [2, 1, 0]


def test_a_name_of_the_zoo_goes_first() -> None:
    assert Model.from_pretrained("smoke", device="cpu").name == "smoke"


def test_a_hub_id_is_asked_of_huggingface_hub(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is the extra [hub]")
    folder = model.save_pretrained(tmp_path / "snapshots" / "0123abcd")
    asked: list[Any] = []

    def snapshot(repo: str, **options: Any) -> str:
        asked.append((repo, options))
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    found = Model.from_pretrained("someone/tiny", revision="v1")
    assert found.name == "tiny" and found.classes == model.classes
    files = ["config.json", "model.safetensors"]
    assert asked == [("someone/tiny", {"revision": "v1", "allow_patterns": files})]

    def refused(repo: str, **_: Any) -> str:
        raise hub.errors.LocalEntryNotFoundError("offline\nand so on")

    monkeypatch.setattr(hub, "snapshot_download", refused)
    with pytest.raises(InputError, match=r"someone/tiny: not a folder here.*\(offline\)"):
        Model.from_pretrained("someone/tiny")


def test_what_looks_like_a_path_is_never_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Path:
        raise AssertionError("would have downloaded")

    monkeypatch.setattr(checkpoint, "from_hub", never)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for path in ("runs/smok", "./smoke", "a/b/c", "nothing", str(tmp_path / "gone"), "~/model"):
        with pytest.raises(InputError, match=r"no model|not a checkpoint"):
            Model.from_pretrained(path)
    from monolift import load

    with pytest.raises(InputError, match="no model 'someone/tiny'"):
        load("someone/tiny")


def test_without_huggingface_hub_the_pip_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingExtraError, match=r'pip install "monolift\[hub\]"'):
        Model.from_pretrained("someone/tiny")


def test_the_demo_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--quiet"]) == 0
    assert main(["models", "--quiet"]) == 0
    assert model_zoo.names()
