"""Checkpoints of other programs: recognised, placed by name, refused where they are not whole."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers.smoke_golden import released_shapes

from monolift.cli import main
from monolift.errors import InputError
from monolift.inference import checkpoint
from monolift.inference.released import read_foreign, recognise
from monolift.methods.smoke import Smoke, SmokeConfig, official, paper
from monolift.methods.smoke.released import for_config, released
from monolift.training.initialise import initialise
from monolift.typing import Tensor

TO_MMDET3D = (
    ("backbone.body.base.", "backbone."),
    ("backbone.body.", "neck."),
    ("heads.predictor.class_head.0", "bbox_head.conv_cls_prev.0.conv"),
    ("heads.predictor.class_head.1", "bbox_head.conv_cls_prev.0.gn"),
    ("heads.predictor.class_head.3", "bbox_head.conv_cls"),
    ("heads.predictor.regression_head.0", "bbox_head.conv_reg_prevs.0.0.conv"),
    ("heads.predictor.regression_head.1", "bbox_head.conv_reg_prevs.0.0.gn"),
    ("heads.predictor.regression_head.3", "bbox_head.conv_regs.0"),
)


def entries(prefix: str = "", program: str = "official") -> dict[str, Tensor]:
    """A checkpoint's entries without memory: each is one number, its own, everywhere."""
    found = {}
    for k, (name, shape) in enumerate(released_shapes().items()):
        if program == "mmdet3d":
            name = _mmdet3d_name(name)
        found[prefix + name] = torch.full((1,), k / 100).expand(shape)
    return found


def _mmdet3d_name(name: str) -> str:
    up_path = "_up." in name
    for theirs, other in TO_MMDET3D:
        name = name.replace(theirs, other)
    if up_path:
        name = name.replace("deform_conv.conv_offset_mask.", "conv.conv_offset.")
        name = name.replace("deform_conv.", "conv.").replace(".norm.", ".gn.")
    return name


@pytest.mark.parametrize("program", ["official", "mmdet3d"])
def test_every_entry_has_a_place_and_six_are_unused(program: str) -> None:
    found = released(entries(program=program))
    assert found is not None
    assert len(found.state) == 227
    assert len(found.ignored) == 6 and all(".project." in name for name in found.ignored)
    known = released(entries())
    assert known is not None
    assert all(torch.equal(found.state[name], known.state[name]) for name in known.state)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: e.pop("backbone.body.base.level2.root.conv.weight"), "1 of 227 entries .* missing"),
        (lambda e: e.update({"backbone.body.extra.weight": torch.zeros(1)}), "unknown"),
        (lambda e: e.update({"heads.predictor.class_head.3.bias": torch.zeros(4)}), "another shape"),
        (
            lambda e: e.update({"heads.predictor.class_head.3.bias": torch.full((3,), torch.nan)}),
            "not finite",
        ),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(change: Any, said: str) -> None:
    broken = entries()
    change(broken)
    with pytest.raises(InputError, match=said):
        released(broken)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.to_sparse(), "expected a dense tensor"),
        (lambda v: v.to(torch.complex64), "expected a dense tensor"),
        (lambda v: v.to("meta"), "expected a dense tensor"),
        (lambda v: v.long(), "no real numbers"),
    ],
)
def test_an_entry_that_is_no_plain_tensor_is_named(change: Any, said: str, tmp_path: Path) -> None:
    name = "heads.predictor.class_head.3.bias"
    torch.save({"model": {**entries(), name: change(torch.ones(3))}}, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=f"odd.pth: .*{said}"):
        recognise(tmp_path / "odd.pth")


def test_mmdetection3d_has_its_own_classes_colours_and_camera() -> None:
    found = released(entries(program="mmdet3d"))
    assert found is not None
    assert found.config.classes == ("Pedestrian", "Cyclist", "Car")
    assert found.config.sizes[2] == (3.88, 1.63, 1.53)
    assert not found.config.quirks.bgr and not found.config.quirks.intrinsics_only
    state, told = for_config(found, official())
    assert torch.equal(state["network.heatmap.3.bias"], found.state["network.heatmap.3.bias"].flip(0))
    assert "classes" in told[0] and "channels" in told[1]


@pytest.mark.slow
def test_a_released_file_is_converted_loaded_and_trained_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model_final.pth"
    torch.save({"model": entries("module."), "iteration": 25000}, file)
    assert main(["convert-checkpoint", str(file), str(tmp_path / "converted")]) == 0
    assert "227 entries placed, 6 unused (backbone.body.base.level3" in capsys.readouterr().err
    direct, converted = checkpoint.load(file), checkpoint.load(tmp_path / "converted")
    assert direct.config == converted.config == official()
    there = converted.state_dict()
    assert all(torch.equal(v, there[k]) for k, v in direct.state_dict().items())

    def no_images() -> Tensor:
        raise AssertionError("the file needs none")

    detector = Smoke(official())
    assert "227 of 227 entries taken" in initialise(detector, file, no_images)
    assert torch.equal(detector.network.heatmap[3].bias, direct.network.get_submodule("heatmap")[3].bias)
    assert "classes reordered" in initialise(Smoke(paper()), file, no_images)
    with pytest.raises(InputError, match="official"):
        initialise(Smoke(), file, no_images)


def test_a_file_of_backbone_weights_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Smoke(SmokeConfig())
    torch.save(
        {k: torch.zeros_like(v) for k, v in detector.backbone.state_dict().items()}, tmp_path / "b.pth"
    )
    read = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: (read.append(a), load(*a, **k))[1])
    assert "entries of the backbone taken" in initialise(detector, tmp_path / "b.pth", lambda: torch.zeros(0))
    assert len(read) == 1
    assert not any(v.any() for v in detector.backbone.state_dict().values())


class _Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("touched"),))


def test_a_file_that_needs_unpickling_is_refused_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"heads.predictor.class_head.3.weight": _Evil()}}, "evil.pth")
    Path("plain.pth").write_bytes(pickle.dumps(_Evil()))
    Path("cut.pth").write_bytes(Path("evil.pth").read_bytes()[:200])
    torch.save({"state_dict": {"something.weight": torch.zeros(2)}}, "other.pth")
    for name in ("evil.pth", "plain.pth", "cut.pth", "other.pth"):
        assert main(["convert-checkpoint", name, "out"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and name in said
    assert not recwarn.list
    assert not Path("touched").exists() and not Path("out").exists()
    assert recognise("other.pth") is None
    with pytest.raises(InputError, match="lzccccc/SMOKE"):
        read_foreign("other.pth")
