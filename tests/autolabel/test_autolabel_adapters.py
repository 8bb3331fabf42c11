"""Models of the user's own. ONNX files run for real in onnxruntime; torchvision, rfdetr and transformers, which are too large
for a test, are replaced by modules with the interface that their documentation gives."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from monolift.autolabel.adapters import open_depth, open_mask_finder
from monolift.autolabel.observe import CalibratedImage, Selection, observe
from monolift.errors import InputError, MissingExtraError
from monolift.geometry import Camera

WIDTH, HEIGHT = 70, 56
CAMERA = Camera(60.0, 60.0, 34.5, 20.0, width=WIDTH, height=HEIGHT)
BOX = [[10.0, 20.0, 40.0, 50.0]]  # from the image's corner, as networks give it


@pytest.fixture
def photo() -> CalibratedImage:
    """A bright red rectangle, columns 10 to 39 and rows 20 to 49."""
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    image[0, 20:50, 10:40] = 255
    return CalibratedImage("000001", image, CAMERA)


def red(photo: CalibratedImage) -> torch.Tensor:
    return photo.image[0] > 127


def road() -> np.ndarray:
    """Depth of a road 1.65 m below the camera."""
    rows = np.arange(HEIGHT)[:, None] - 20.0
    z = np.where(rows > 0, 60.0 * 1.65 / np.maximum(rows, 1e-9), 60.0)
    return np.broadcast_to(z, (HEIGHT, WIDTH)).astype(np.float32).copy()


def check_red_car(spec: str, photo: CalibratedImage) -> None:
    found = open_mask_finder(spec).find(photo)
    assert torch.equal(found.map > 0, red(photo))
    assert found.classes == ("Car",)
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.boxes2d.tolist() == [[9.5, 19.5, 39.5, 49.5]]  # ours count from the first pixel's centre


# --- onnx


def onnx_file(
    path: Path, nodes: list[Any], constants: dict[str, np.ndarray], shape: list[Any], outputs: dict[str, int]
) -> Path:
    """An ONNX model of one float input "image"; outputs: name -> type."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    graph = onnx.helper.make_graph(
        nodes,
        "model",
        [onnx.helper.make_tensor_value_info("image", 1, shape)],
        [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    return onnx.helper.make_node(kind, inputs, outputs, **attributes)


def red_finder(path: Path, shape: list[Any]) -> Path:
    """Gives (1, 1, H, W) = the red channel, and a fixed box, label and score, in torchvision's order."""
    axis = len(shape) - 3
    nodes = [
        node("Gather", ["image", "first"], ["plane"], axis=axis),
        node("Reshape", ["plane", "form"], ["masks"]),
        *(node("Identity", [f"{name}_"], [name]) for name in ("boxes", "labels", "scores")),
    ]
    constants = {
        "first": np.array([0]),
        "form": np.array([1, 1, HEIGHT, WIDTH]),
        "boxes_": np.array(BOX, np.float32),
        "labels_": np.array([3]),
        "scores_": np.array([0.9], np.float32),
    }
    return onnx_file(path, nodes, constants, shape, {"boxes": 1, "labels": 7, "scores": 1, "masks": 1})


@pytest.mark.parametrize("shape", [[3, "h", "w"], [1, 3, "h", "w"]])
def test_masks_of_an_onnx_file(tmp_path: Path, photo: CalibratedImage, shape: list[Any]) -> None:
    check_red_car(f"model:onnx:{red_finder(tmp_path / 'masks.onnx', shape)}", photo)


def depth_file(path: Path, size: tuple[int, int] | None, factor: float = 1.0) -> Path:
    """Gives the road, whatever it is shown (but it must be shown something of the right size)."""
    height, width = size or (HEIGHT, WIDTH)
    values = torch.nn.functional.interpolate(
        torch.from_numpy(road())[None, None], (height, width), mode="bilinear"
    )
    nodes = [
        node("ReduceMean", ["image"], ["mean"], axes=[1], keepdims=1),
        node("Mul", ["mean", "zero"], ["nothing"]),
        node("Add", ["nothing", "road"], ["depth"]),
    ]
    constants = {"zero": np.zeros(1, np.float32), "road": values.numpy() * np.float32(factor)}
    shape = [1, 3, *(size or ("h", "w"))]
    return onnx_file(path, nodes, constants, shape, {"depth": 1})


@pytest.mark.parametrize("size", [None, (28, 35)])
def test_depth_of_an_onnx_file_is_brought_to_the_image(
    tmp_path: Path, photo: CalibratedImage, size: tuple[int, int] | None
) -> None:
    depth = open_depth(f"model:onnx:{depth_file(tmp_path / 'd.onnx', size)}").find(photo)
    assert depth.shape == (HEIGHT, WIDTH)
    near = slice(36, 54)  # far away half the rows cannot tell the road's depth
    torch.testing.assert_close(depth[near], torch.from_numpy(road())[near], rtol=0.03, atol=0.0)


def test_units_of_a_depth_model_are_checked(tmp_path: Path, photo: CalibratedImage) -> None:
    spec = f"model:onnx:{depth_file(tmp_path / 'd.onnx', None, 1000.0)}"
    with pytest.raises(InputError, match=r"d\.onnx: 000001: these depths are not metres .* millimetres"):
        open_depth(spec).find(photo)
    torch.testing.assert_close(open_depth(spec, 0.001).find(photo), torch.from_numpy(road()))


def test_a_real_detector_without_masks_says_what_is_missing(shared: Path, photo: CalibratedImage) -> None:
    """YOLOX-nano, as published, in onnxruntime: it takes another size than the image's, and gives boxes only."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    finder = open_mask_finder(f"model:onnx:{shared / 'weights' / 'yolox_nano.onnx'}")
    with pytest.raises(InputError, match=r"yolox_nano\.onnx: cannot take an image of \(1, 3, 56, 70\)"):
        finder.find(photo)
    square = CalibratedImage("a", torch.zeros(3, 416, 416, dtype=torch.uint8), CAMERA)
    with pytest.raises(InputError, match=r"expected boxes .* got float32 \(1, 3549, 85\)"):
        finder.find(square)


def test_what_is_no_onnx_file_is_said(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a\.onnx: not a readable ONNX model"):
        open_depth(f"model:onnx:{tmp_path / 'a.onnx'}")


# --- packages, by stand-ins of the same interface


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    parts = name.split(".")
    for k in range(len(parts)):
        module = ModuleType(".".join(parts[: k + 1]))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for key, value in content.items():
        setattr(sys.modules[name], key, value)


def test_mask_rcnn(tmp_path: Path, photo: CalibratedImage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.threshold = torch.nn.Parameter(torch.tensor(9.0))

        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            assert not self.training and images[0].max() == 1
            mask = torch.where(images[0][0] > self.threshold, 0.8, 0.1)
            # the second is too unlikely, the third no vehicle
            return [
                {
                    "boxes": torch.tensor(BOX * 2),
                    "labels": torch.tensor([3, 3]),
                    "scores": torch.tensor([0.9, 0.01]),
                    "masks": mask.expand(2, 1, -1, -1),
                }
            ]

    def build(weights: None, weights_backbone: None) -> Network:
        assert weights is None and weights_backbone is None  # or torchvision would download
        return Network()

    stand_in(monkeypatch, "torchvision.models.detection", maskrcnn_resnet50_fpn_v2=build)
    torch.save({"threshold": torch.tensor(0.5)}, tmp_path / "w.pth")
    check_red_car(f"model:maskrcnn:{tmp_path / 'w.pth'}", photo)
    torch.save({"other": torch.tensor(0.5)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth: not weights of maskrcnn"):
        open_mask_finder(f"model:maskrcnn:{tmp_path / 'w.pth'}")


def test_rf_detr(tmp_path: Path, photo: CalibratedImage, monkeypatch: pytest.MonkeyPatch) -> None:
    class RFDETRSegMedium:
        def __init__(self, pretrain_weights: str) -> None:
            assert Path(pretrain_weights).exists()

        def predict(self, image: Any, threshold: float) -> SimpleNamespace:
            pixels = np.asarray(image)
            return SimpleNamespace(
                xyxy=np.array(BOX, np.float32),
                confidence=np.array([0.9], np.float32),
                class_id=np.array([3]),
                mask=pixels[None, ..., 0] > 127,
            )

    stand_in(monkeypatch, "rfdetr", RFDETRSegMedium=RFDETRSegMedium)
    (tmp_path / "w.pth").touch()
    check_red_car(f"model:rfdetr-seg-medium:{tmp_path / 'w.pth'}", photo)


def test_transformers_depth(tmp_path: Path, photo: CalibratedImage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Processor:
        @classmethod
        def from_pretrained(cls, folder: str, local_files_only: bool) -> Processor:
            assert local_files_only
            return cls()

        def __call__(self, images: torch.Tensor, return_tensors: str) -> dict[str, torch.Tensor]:
            return {"pixel_values": images[None].float()}

    class Network(torch.nn.Module):
        @classmethod
        def from_pretrained(cls, folder: str, local_files_only: bool) -> Network:
            if not (Path(folder) / "config.json").exists():
                raise OSError("no config.json in the folder\nand more")
            return cls()

        def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
            assert pixel_values.shape == (1, 3, HEIGHT, WIDTH)
            return SimpleNamespace(predicted_depth=torch.from_numpy(road())[None])

    stand_in(monkeypatch, "transformers", AutoImageProcessor=Processor, AutoModelForDepthEstimation=Network)
    with pytest.raises(
        InputError, match=r"not a depth model of transformers \(no config\.json in the folder\)$"
    ):
        open_depth(f"model:transformers:{tmp_path}")
    (tmp_path / "config.json").touch()
    depth = open_depth(f"model:transformers:{tmp_path}")
    torch.testing.assert_close(depth.find(photo), torch.from_numpy(road()))


def test_models_for_both_make_an_observation(tmp_path: Path, photo: CalibratedImage) -> None:
    masks = open_mask_finder(f"model:onnx:{red_finder(tmp_path / 'masks.onnx', [3, 'h', 'w'])}")
    depth = open_depth(f"model:onnx:{depth_file(tmp_path / 'd.onnx', None)}")
    assert masks.names is depth.names is None  # any image
    (one,) = observe(photo, masks, depth, Selection()).observations
    assert torch.equal(one.mask == 1, red(photo))
    torch.testing.assert_close(one.depth, torch.from_numpy(road()))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("model:maskrcnn", "expected files, or a model as one of model:maskrcnn:PATH, model:onnx:PATH"),
        ("model:unet:w.pth", "expected files, or a model as one of"),
        ("model:maskrcnn:gone.pth", r"gone.pth: no such file .*nothing is downloaded"),
    ],
)
def test_bad_model_names(spec: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_mask_finder(spec)


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w").touch()
    for spec, package, extra in (
        ("model:maskrcnn", "torchvision.models.detection", "autolabel"),
        ("model:rfdetr-seg-nano", "rfdetr", "autolabel"),
        ("model:onnx", "onnxruntime", "onnx"),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=rf'pip install "monolift\[{extra}\]"'):
            open_mask_finder(f"{spec}:{tmp_path / 'w'}")
