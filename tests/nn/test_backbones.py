"""Every backbone keeps one interface, whatever kind is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from monolift.errors import InputError
from monolift.nn.backbones import NAMES, Backbone, build_backbone
from monolift.typing import Tensor

ALL = [(kind, name) for kind, names in NAMES.items() for name in names]


def no_images() -> Tensor:
    raise AssertionError("no images are needed")


@pytest.mark.parametrize("kind, name", ALL)
def test_maps_have_the_strides_and_channels_that_a_backbone_names(kind: str, name: str) -> None:
    backbone = build_backbone(name, kind=kind, deformable=False).eval()
    assert isinstance(backbone, Backbone) and backbone.stride == backbone.strides[0]
    image = torch.randn(1, 3, 64, 128)
    with torch.no_grad():
        levels, finest = backbone.pyramid(image), backbone(image)
    assert torch.equal(levels[0], finest)
    shapes = [(backbone.out_channels, -(-64 // s), -(-128 // s)) for s in backbone.strides]
    assert [tuple(x.shape[1:]) for x in levels] == shapes
    assert list(backbone.parts) == [key for key, _ in backbone.named_children()]


@pytest.mark.parametrize("kind, name", ALL)
def test_a_file_in_our_own_names_fills_what_the_backbone_starts_from(
    kind: str, name: str, tmp_path: Path
) -> None:
    first, second = (build_backbone(name, "batch", kind=kind, deformable=False) for _ in range(2))
    prefix = "base." if "base" in first.parts else ""
    state = {k.removeprefix(prefix): v for k, v in first.state_dict().items() if k.startswith(prefix)}
    save_file(state, tmp_path / "own.safetensors")
    report = second.load_pretrained(tmp_path / "own.safetensors", no_images)
    assert set(report.loaded) == set(state) and report.naming == "monolift"
    filled = second.state_dict()
    assert all(torch.equal(filled[prefix + key], value) for key, value in state.items())


@pytest.mark.parametrize(
    "name, fitting",
    [
        ("nano", "yolox_nano.onnx"),
        ("efficientnet-lite2", "efficientnet_lite2_imagenet"),
        ("resnet18", "torchvision"),
        ("dla34", "dla34-ba72cf86.pth"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".onnx", ".txt"])
def test_a_file_that_does_not_fit_is_an_error_that_names_those_that_do(
    name: str, fitting: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"other{suffix}"
    content = {"conv.weight": torch.zeros(3, 3)}
    if suffix == ".safetensors":
        save_file(content, path)
    elif suffix == ".pth":
        torch.save(content, path)
    else:
        path.write_text("none")
    with pytest.raises(InputError, match=rf"other\{suffix}") as error:
        build_backbone(name, deformable=False).load_pretrained(path, no_images)
    if suffix != ".onnx" or name != "nano":
        assert fitting in str(error.value)


def test_unknown_backbones_are_named() -> None:
    with pytest.raises(
        InputError, match=r"one of nano, efficientnet-lite2, dla34, .* or timm:NAME, got 'vgg'"
    ):
        build_backbone("vgg")
    with pytest.raises(InputError, match="one of nano, efficientnet-lite2, resnet18, resnet34, got"):
        build_backbone("timm:resnet18", kind="pyramid")
    with pytest.raises(InputError, match="norm must be group or batch"):
        build_backbone("nano", "layer")
