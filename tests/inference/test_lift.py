"""Another detector's 2D boxes lifted to 3D by ROI-10D's second stage; and the short ways to call a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import monolift
from fake_detector import FakeDetector
from monolift.cli import main
from monolift.data.formats.boxes2d import Boxes2D
from monolift.errors import InputError
from monolift.inference import zoo
from monolift.inference.model import Model
from street import street

IMAGE, CALIB = zoo.EXAMPLE / "example.jpg", zoo.EXAMPLE / "calib.txt"
CAMERA = (700.0, 700.0, 621.0, 187.0)


@pytest.fixture(scope="module")
def roi10d() -> Model:
    return monolift.load("roi10d", "cpu")


def test_the_models_own_regions_lift_to_its_own_boxes(roi10d: Model) -> None:
    found = roi10d.detect(IMAGE, calib=CALIB)
    assert len(found) > 1
    given = Boxes2D.of(found.boxes2d, found.classes, found.objects.score2d)  # type: ignore[attr-defined]
    lifted = roi10d.lift(IMAGE, given, calib=CALIB)
    assert len(lifted) == len(found)
    order = torch.cdist(lifted.boxes2d, found.boxes2d).argmin(0)
    inside = (
        ((found.boxes2d[:, 0] > 1) & (found.boxes2d[:, 2] < found.image.shape[2] - 2)).nonzero().flatten()
    )
    assert len(inside)  # boxes cut at the border lose what stood outside
    assert lifted.boxes.center[order][inside] == pytest.approx(found.boxes.center[inside], abs=0.05)


def test_every_box_is_lifted_once_and_other_classes_are_counted(roi10d: Model) -> None:
    twice = Boxes2D.of(
        [[700, 180, 760, 220], [702, 181, 761, 221], [10, 10, 40, 90]], ["car", "Car", "dog"], [0.5, 0.9, 0.4]
    )
    result = roi10d.lift(IMAGE, twice, calib=CALIB)
    assert len(result) == 2  # no NMS: each was said to be an object
    assert result.warnings == ("2D boxes left out: 1 dog; this model lifts Car",)
    none = roi10d.lift(IMAGE, Boxes2D.of([], []), calib=CALIB)
    assert len(none) == 0


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("image,class,x1,y1,x2,y2\nexample.jpg,Car,700,180,760,220\n")
    command = [
        "detect",
        str(IMAGE),
        "--calib",
        str(CALIB),
        "--boxes",
        "a.csv",
        "--save",
        "kitti",
        "--device",
        "cpu",
    ]
    assert main([*command, "--model", "roi10d"]) == 0
    row = Path("out/example.txt").read_text().split()
    assert row[0] == "Car" and [float(v) for v in row[4:8]] == pytest.approx([700, 180, 760, 220], abs=0.01)
    assert main(command) == 2
    assert "smoke does not lift 2D boxes: roi10d does" in capsys.readouterr().err
    assert main([*command, "--model", "roi10d", "--boxes", "b.csv"]) == 2
    assert "b.csv: no such file" in capsys.readouterr().err


def test_a_model_is_called_like_a_function() -> None:
    model = Model(FakeDetector().eval(), "fake")
    frame = street()
    one = model(frame, CAMERA)
    assert str(one) == str(model.detect(frame, CAMERA))
    seen: list[tuple[int, int | None]] = []
    two = model([frame, frame], CAMERA, progress=lambda done, all: seen.append((done, all)))
    assert [str(r) for r in two] == [str(one)] * 2 and seen == [(1, 2), (2, 2)]
    lazily = model.detect((image for image in [frame, frame]), CAMERA)
    assert len(lazily) == 2
    assert len(monolift.detect((f for f in [frame]), CAMERA, model=model)) == 1


def test_a_generator_is_read_as_results_are_taken() -> None:
    model = Model(FakeDetector().eval(), "fake")
    read: list[int] = []

    def images() -> object:
        for k in range(3):
            read.append(k)
            yield street()

    results = model.stream(images(), CAMERA)
    next(results)
    assert read == [0]


def test_to_and_half() -> None:
    model = Model(FakeDetector().eval(), "fake")
    assert model.to("cpu") is model and model.half() is model
    assert len(model(street(), CAMERA)) > 0
    with pytest.raises(InputError, match="not usable here"):
        model.to("cuda:99")
    with pytest.raises(InputError, match="goes with the backend torch"):
        Model(FakeDetector().eval(), "fake", backend="onnx").half()


def test_half_precision_moves_boxes_little() -> None:
    model = monolift.load("smoke", "cpu")
    image = Image.open(IMAGE)
    full, half = model(image, calib=CALIB), model.half()(image, calib=CALIB)
    assert half.boxes.center.dtype == torch.float32
    near = torch.cdist(half.boxes.center, full.boxes.center).amin(1)
    assert float((near / half.distance).median()) < 0.05
