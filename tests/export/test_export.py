"""Export: a small deformable network in SMOKE's place, so that the graph takes a second; files, checks, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from monolift import export as exporting
from monolift.cli import main
from monolift.errors import InputError
from monolift.export.backend import with_backend
from monolift.export.folder import write_folder, write_triton
from monolift.geometry import Camera
from monolift.inference.backends import exported_file
from monolift.inference.model import Model
from monolift.methods.smoke import Smoke, SmokeConfig
from monolift.nn.deform import DeformConv2d
from monolift.runtime import RuntimeInputError, load

for name in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(name)


class Small(nn.Module):
    """Four layers to stride 4, one of them deformable, with SMOKE's maps."""

    def __init__(self, outputs: int, last: nn.Module | None = None) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.bend = DeformConv2d(8, 8)
        self.heat, self.numbers = nn.Conv2d(8, 3, 1), nn.Conv2d(8, outputs, 1)
        self.last = last or nn.Identity()

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.bend(self.down(images))
        return {"heatmap": self.last(self.heat(x)), "regression": self.numbers(x)}


def small_model(last: nn.Module | None = None) -> Model:
    torch.manual_seed(0)
    detector = Smoke(SmokeConfig(input_width=192, input_height=64))
    network = Small(detector.codec.channels, last)
    nn.init.normal_(network.bend.conv_offset_mask.weight, std=0.1)
    detector.network = network  # type: ignore[assignment]
    return Model(detector.eval(), "small", {"score": 0.05, "licence": "none"})


def some_images(count: int = 2) -> list[exporting.CameraImage]:
    generator = torch.Generator().manual_seed(1)
    images = []
    for k in range(count):
        blocks = torch.randint(0, 256, (3, 12, 40 - 4 * k), generator=generator).byte()
        image = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)
        images.append((image, Camera(400, 400, 300, 90, 0.06, width=image.shape[2], height=image.shape[1])))
    return images


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path, exporting.Report]:
    path = tmp_path_factory.mktemp("export") / "small.onnx"
    model = small_model()
    return model, path, exporting.export(model, path, some_images())


def test_the_deformable_layer_is_one_standard_node_and_the_maps_agree(
    exported: tuple[Model, Path, exporting.Report],
) -> None:
    import onnx

    model, path, report = exported
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    assert nodes.count("DeformConv") == 1
    assert all(node.domain in ("", "ai.onnx") for node in onnx.load(path).graph.node)
    assert max(report.agreement.raw.values()) < 1e-4
    assert report.agreement.boxes > 0 and report.agreement.lost == 0
    assert report.agreement.center < 1e-3
    # another batch and another size than the one traced
    images = torch.randint(0, 256, (3, 3, 96, 64), dtype=torch.uint8)
    raw = load(path).run(images.numpy())
    detector = model.detector
    with torch.no_grad():
        expected = detector(detector.normalise(images))  # type: ignore[arg-type]
    for name, maps in expected.items():
        assert np.abs(raw[name] - maps.numpy()).max() < 1e-4


def test_the_file_describes_itself(exported: tuple[Model, Path, exporting.Report]) -> None:
    model, path, _ = exported
    found = load(path)
    assert found.classes == model.classes and found.score == 0.05
    assert found.description["method"] == "smoke"
    assert found.config["input_width"] == 192
    assert [p.name for p in path.parent.iterdir()] == ["small.onnx"]  # nothing half-written beside it


def test_a_model_runs_on_its_exported_file(
    exported: tuple[Model, Path, exporting.Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path, _ = exported
    image, camera = some_images()[0]
    expected = model.detect(image, camera)
    monkeypatch.setenv("MONOLIFT_CACHE", str(tmp_path))
    (tmp_path / "mine").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "mine" / name).touch()
    shutil.copyfile(path, exported_file(tmp_path / "mine"))
    for given in (path, None):
        other = with_backend(model, "onnx", tmp_path / "mine", given)
        assert (model.backend, other.backend) == ("torch", "onnx")
        found = other.detect(image, camera)
        assert len(found) == len(expected) > 0 and found.classes == expected.classes
        assert (found.boxes.center - expected.boxes.center).abs().max() < exporting.TOLERANCE
        assert (found.scores - expected.scores).abs().max() < exporting.TOLERANCE


def test_an_exported_file_of_another_model_is_refused(
    exported: tuple[Model, Path, exporting.Report], tmp_path: Path
) -> None:
    model, path, _ = exported
    other = Model(Smoke(SmokeConfig(input_width=224, input_height=64)), "wider")
    with pytest.raises(InputError, match="exported from another model than wider"):
        with_backend(other, "onnx", tmp_path, path)
    assert model.backend == "torch"
    other = small_model()
    with torch.no_grad():
        other.detector.network.heat.weight.add_(0.01)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="exported from another model than small"):
        with_backend(other, "onnx", tmp_path, path)


def test_what_cannot_be_averaged_cannot_be_on_another_backend(
    exported: tuple[Model, Path, exporting.Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path, _ = exported
    monkeypatch.setattr(model.detector, "averages", False)
    other = with_backend(model, "onnx", tmp_path, path)
    with pytest.raises(InputError, match="its detections are not averaged"):
        other.detect(*some_images(1)[0], zooms=(1.0, 0.8))


def test_a_cache_that_cannot_be_written_or_read_is_named(
    exported: tuple[Model, Path, exporting.Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, _ = exported
    (tmp_path / "mine.safetensors").write_bytes(b"weights")
    cache = tmp_path / "cache"
    monkeypatch.setenv("MONOLIFT_CACHE", str(cache))
    cache.touch()
    with pytest.raises(InputError, match=r"cache/mine.safetensors-\w+\.onnx: cannot write: "):
        with_backend(model, "onnx", tmp_path / "mine.safetensors")
    cache.unlink()
    file = exported_file(tmp_path / "mine.safetensors")
    file.parent.mkdir()
    file.write_bytes(b"\x08\x07broken")
    with pytest.raises(InputError, match=r"not a model that onnxruntime can read .*: delete it"):
        with_backend(model, "onnx", tmp_path / "mine.safetensors")


def test_a_disagreement_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    write = exporting.write_graph

    def and_then_change_the_weights(model: Model, path: Path) -> None:
        write(model, path)
        with torch.no_grad():
            model.detector.network.heat.weight.add_(0.01)  # type: ignore[attr-defined]

    monkeypatch.setattr(exporting, "write_graph", and_then_change_the_weights)
    with pytest.raises(FloatingPointError, match="differs from PyTorch"):
        exporting.export(model, tmp_path / "x.onnx", some_images(1))
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_finite_maps_leaves_no_file(tmp_path: Path) -> None:
    class Undefined(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * float("nan")

    with pytest.raises(FloatingPointError, match="differs from PyTorch by nan"):
        exporting.export(small_model(Undefined()), tmp_path / "x.onnx", some_images(1))
    assert list(tmp_path.iterdir()) == []


def test_an_operator_that_onnx_lacks_is_named_with_its_layer(tmp_path: Path) -> None:
    class Twisted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.linalg.eigvalsh(x @ x.transpose(-1, -2)).sum()

    with pytest.raises(InputError, match=r"eig.*layer: network\.last") as caught:
        exporting.export(small_model(Twisted()), tmp_path / "x.onnx", some_images(1))
    assert "small: cannot be exported" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_int8_is_smaller_keeps_its_description_and_the_heads_in_float(
    exported: tuple[Model, Path, exporting.Report], tmp_path: Path
) -> None:
    import onnx

    model, path, report = exported
    small = tmp_path / "int8.onnx"
    shutil.copyfile(path, small)
    exporting.quantise(model, small, some_images(3))
    found = exporting.agreement(model, load(small), some_images())
    assert load(small).description == load(path).description
    # 8 bits are coarser than float32 and still the same network
    for name, error in found.raw.items():
        assert report.agreement.raw[name] < error < 0.5
    graph = onnx.load(small).graph
    dequantised = {out for node in graph.node if node.op_type == "DequantizeLinear" for out in node.output}
    eight_bit = [n for n in graph.node if n.op_type == "Conv" and n.input[1] in dequantised]
    assert len(eight_bit) >= 1
    for node in graph.node:
        if node.op_type == "Conv" and {o.name for o in graph.output} & set(node.output):
            assert node.input[1] not in dequantised


def test_the_folder_runs_without_torch_and_without_monolift(
    exported: tuple[Model, Path, exporting.Report], tmp_path: Path
) -> None:
    from PIL import Image

    model, path, _ = exported
    folder = write_folder(path, tmp_path / "box")
    image, camera = some_images(1)[0]
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "street.png")
    (tmp_path / "calib.txt").write_text(
        "P2: " + " ".join(f"{v:.12e}" for v in camera.matrix.flatten().tolist())
    )
    # an interpreter in which neither can be imported
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['torch'] = None\nsys.modules['monolift'] = None\n"
    )
    command = [sys.executable, str(folder / "detect.py"), str(tmp_path / "street.png"), "calib.txt"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["objects"]
    expected = model.detect(tmp_path / "street.png", camera).to_dict()["objects"]
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected, strict=True):
        assert mine["class"] == theirs["class"]
        assert mine["center"] == pytest.approx(theirs["center"], abs=2e-3)
        assert mine["yaw"] == pytest.approx(theirs["yaw"], abs=1e-3)
    with pytest.raises(InputError, match="holds other files"):
        write_folder(path, tmp_path)
    write_folder(path, folder)  # over an earlier export


def test_openvino_gives_the_same_maps_and_says_what_it_lacks(
    exported: tuple[Model, Path, exporting.Report], tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    _, path, _ = exported
    with pytest.raises(RuntimeInputError, match="it lacks DeformConv-19; engine onnxruntime has it"):
        load(path, engine="openvino")
    model = small_model()
    model.detector.network.bend = nn.Conv2d(8, 8, 3, padding=1)  # type: ignore[attr-defined]
    exporting.write_graph(model, tmp_path / "plain.onnx")
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 96), np.uint8)
    found = load(tmp_path / "plain.onnx", engine="openvino", threads=1).run(images)
    for name, maps in load(tmp_path / "plain.onnx").run(images).items():
        assert np.abs(found[name] - maps).max() < 1e-4


def test_triton_repository(exported: tuple[Model, Path, exporting.Report], tmp_path: Path) -> None:
    model, path, _ = exported
    folder = write_triton(path, tmp_path, "cars")
    assert sorted(str(p.relative_to(tmp_path)) for p in folder.rglob("*") if p.is_file()) == [
        "cars/1/model.onnx",
        "cars/config.pbtxt",
    ]
    text = (folder / "config.pbtxt").read_text()
    assert 'name: "images" data_type: TYPE_UINT8 dims: [ 3, -1, -1 ]' in text
    assert 'name: "heatmap" data_type: TYPE_FP32 dims: [ 3, -1, -1 ]' in text
    escaped = text.split("string_value: ")[1].rsplit(" }", 2)[0]
    assert json.loads(json.loads(escaped))["method"] == model.detector.method


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--int8"], "--int8 needs --calibration DIR"),
        (["--calibration", "."], "--calibration is for --int8 only"),
        (["--ap-split", "x.txt"], "--ap-data ROOT, which is missing"),
        (["--out", "model.pt"], "ends in .onnx"),
        (["--images", "no/such/folder"], "no/such/folder"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["export", "smoke", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
