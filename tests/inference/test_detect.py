"""From an image in any shape to boxes, with a detector whose answers are known."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import monolift
from fake_detector import FakeDetector
from monolift.data.formats.kitti_format import parse_labels
from monolift.data.sources import expand, input_image, read_input_image
from monolift.errors import InputError, MissingExtraError
from monolift.files.json_text import format_json
from monolift.inference.device import pick_device
from monolift.inference.model import Model, load
from monolift.inference.results import SCHEMA, Results3D
from street import CAMERA, street


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(FakeDetector().eval(), "fake")


def test_boxes_are_metric_and_2d_boxes_are_pixels_of_the_source(model: Model) -> None:
    result = model.detect(street(), CAMERA)
    assert isinstance(result, Results3D)
    assert result.classes == ("Car", "Pedestrian")
    x, y, z = result.boxes.center[0].tolist()
    assert z == pytest.approx(700 * 1.5 / 50, rel=0.03)
    assert x == pytest.approx((631.5 - 620.5) / 700 * z, abs=0.03)
    assert y == pytest.approx((194.5 - 187.0) / 700 * z, abs=0.03)
    # found in an image of half the size: to a network pixel
    assert torch.allclose(result.boxes2d[0], torch.tensor([599.5, 169.5, 663.5, 219.5]), atol=2)
    assert set(result.timings) == {"read", "prepare", "network", "decode"}


def test_a_resized_image_with_its_camera_gives_the_same_boxes(model: Model) -> None:
    whole = model.detect(street(), CAMERA)
    small = model.detect(street(0.5), (350.0, 350.0, (620.5 + 0.5) / 2 - 0.5, (187.0 + 0.5) / 2 - 0.5))
    sized = model.detect(street(0.5), "700,700,620.5,187,1242,376")
    for other in (small, sized):
        assert torch.allclose(other.boxes.center, whole.boxes.center, rtol=0.05, atol=0.1)
        assert torch.allclose(other.boxes2d * 2, whole.boxes2d, atol=4)


def test_distances_scale_with_the_focal_length(model: Model) -> None:
    narrow, wide = (model.detect(street(), fov=fov) for fov in (40.0, 80.0))
    ratio = math.tan(math.radians(40)) / math.tan(math.radians(20))
    assert torch.allclose(narrow.boxes.center[:, 2] / wide.boxes.center[:, 2], torch.tensor(ratio), rtol=1e-4)


def test_every_kind_of_source_gives_the_same_boxes(model: Model, tmp_path: Path) -> None:
    image = street()
    path = tmp_path / "street.png"
    image.save(path)
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    results = [model.detect(s, CAMERA) for s in (image, path, str(path), array, tensor)]
    for result in results[1:]:
        assert torch.equal(result.boxes.center, results[0].boxes.center)
    assert results[1].name == "street" and results[1].path == path


def test_several_in_several_out(model: Model, tmp_path: Path) -> None:
    for name, things in (("b", ("Car",)), ("a", ("Pedestrian",))):
        street(names=things).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    several = [tmp_path / "a.png", tmp_path / "b.png"]
    for source in (tmp_path, str(tmp_path / "*.png"), several):
        for batch in (1, 2, 5):
            results = list(model.stream(source, CAMERA, batch=batch))
            assert [r.name for r in results] == ["a", "b"]
            assert [r.classes for r in results] == [("Pedestrian",), ("Car",)]
    assert [r.classes for r in model.detect(several, CAMERA)] == [("Pedestrian",), ("Car",)]
    for source in (tmp_path, str(tmp_path / "*.png"), tmp_path / "clip.mp4"):
        with pytest.raises(InputError, match=r"one image or a list of them.*model\.stream"):
            model.detect(source, CAMERA)
    stream = model.stream(tmp_path, CAMERA)
    assert next(stream).name == "a"


class Counting(FakeDetector):
    """Notes how many images each batch had; breaks on an image that is red all over."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.batches.append(len(images))
        if bool((images[:, 0].flatten(1).float().mean(1) > 240).any()):
            raise RuntimeError("a red image breaks the network")
        return super().forward(images)


def test_images_of_one_network_size_share_a_batch_and_order_is_kept() -> None:
    detector = Counting()
    model = Model(detector.eval(), "fake")
    detector.config = dataclasses.replace(detector.config, fit="area")
    tall, wide = Image.new("RGB", (300, 900)), street()
    images = [wide, tall, wide, wide, tall]
    batched = model.detect(images, fov=60.0)
    assert detector.batches == [3, 2]
    assert [r.image.shape[1] for r in batched] == [376, 900, 376, 376, 900]
    detector.batches.clear()
    streamed = list(model.stream(images, fov=60.0, batch=2))
    assert detector.batches == [1, 1, 2, 1]
    single = [model.detect(image, fov=60.0) for image in images]
    for results in (batched, streamed):
        for one, other in zip(results, single, strict=True):
            assert one.classes == other.classes
            assert torch.allclose(one.boxes.center, other.boxes.center, atol=1e-5)
            assert torch.allclose(one.boxes2d, other.boxes2d, atol=1e-3)
    with pytest.raises(InputError, match="batch: expected 1 or more, got 0"):
        model.stream(images, batch=0)


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_what_fails_is_told_in_its_turn_and_the_others_are_done(tmp_path: Path, batch: int) -> None:
    model = Model(Counting().eval(), "fake")
    for name in "ace":
        street().save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    Image.new("RGB", (1242, 376), (255, 0, 0)).save(tmp_path / "d.png")
    events: list[str] = []
    for result in model.stream(
        tmp_path,
        CAMERA,
        batch=batch,
        on_error=lambda source, error: events.append(f"{Path(source).name}: {error}"),
    ):
        events.append(result.name)
    assert [event[0] for event in events] == list("abcde")
    assert "not a readable" in events[1] and "a red image breaks the network" in events[3]
    results = model.stream(tmp_path, CAMERA, batch=batch)
    assert next(results).name == "a"
    with pytest.raises(InputError, match=r"b\.png"):
        next(results)


def test_a_result_is_indexed_and_iterated(model: Model) -> None:
    result = model.detect(street(), CAMERA)
    assert [one.classes for one in result] == [("Car",), ("Pedestrian",)]
    assert isinstance(result[0], Results3D) and len(result[0]) == 1
    assert result[-1].classes == result[1:].classes == result[result.scores < 0.5].classes == ("Pedestrian",)
    assert torch.equal(result[1].boxes.center, result.boxes.center[1:])
    assert result[0].camera is result.camera and "1 Car" in str(result[0])
    with pytest.raises(IndexError):
        result[2]


def test_a_result_wants_scores_and_2d_boxes(model: Model) -> None:
    result = model.detect(street(), CAMERA)
    unscored = dataclasses.replace(result.objects, scores=None)
    with pytest.raises(ValueError, match="expected objects with scores, got none"):
        dataclasses.replace(result, objects=unscored)
    with pytest.raises(ValueError, match="2 boxes, but"):
        dataclasses.replace(result.objects, meshes=())


def test_a_name_with_brackets_is_a_file_first(model: Model, tmp_path: Path) -> None:
    street().save(tmp_path / "street[1].png")
    assert len(model.detect(tmp_path / "street[1].png", CAMERA)) == 2


def test_scores_below_the_limit_are_left_out(model: Model) -> None:
    assert model.detect(street(), CAMERA, score=0.5).classes == ("Car",)
    with pytest.raises(InputError, match="from 0 to 1, got 25"):
        model.detect(street(), CAMERA, score=25)


def test_a_guessed_camera_is_said(model: Model) -> None:
    result = model.detect(street())
    assert "guess" in result.camera_origin and "distances scale" in result.warnings[0]
    assert "guess" in json.loads(result.to_json())["camera"]["origin"]


# -- results ------------------------------------------------------------------------------------------------------------


def test_kitti_rows_hold_the_bottom_centre_and_read_back(model: Model, tmp_path: Path) -> None:
    result = model.detect(street(), CAMERA)
    rows = parse_labels(result.to_kitti(), scored=True)
    assert rows.names == result.classes
    assert np.allclose(rows.bottom, result.boxes.bottom.numpy(), atol=1e-4)
    assert np.allclose(rows.size_hwl, result.boxes.size[:, [1, 2, 0]].numpy(), atol=1e-4)
    assert np.allclose(rows.alpha, result.boxes.alpha.numpy(), atol=1e-4)
    assert np.allclose(rows.score if rows.score is not None else -1, result.scores.numpy(), atol=1e-4)
    result.save_kitti(tmp_path / "deep" / "street.txt")
    assert (tmp_path / "deep" / "street.txt").read_text() == result.to_kitti()


def test_nothing_found_is_an_empty_file(model: Model, tmp_path: Path) -> None:
    result = model.detect(street(names=()), CAMERA)
    assert len(result) == 0 and "nothing found" in str(result)
    assert result.to_kitti() == ""
    result.save_kitti(tmp_path / "street.txt")
    assert (tmp_path / "street.txt").read_bytes() == b""
    assert json.loads(result.to_json())["objects"] == []
    assert result.plot().width >= 1242


def test_json_is_metres_and_radians(model: Model) -> None:
    result = model.detect(street(), CAMERA)
    content = json.loads(result.to_json())
    assert content["schema"] == SCHEMA
    assert content["image"] == {"width": 1242, "height": 376}
    assert content["camera"]["fx"] == 700
    first = content["objects"][0]
    assert first["class"] == "Car" and first["size"] == {"length": 4.0, "height": 1.5, "width": 1.6}
    assert first["center"] == pytest.approx(result.boxes.center[0].tolist(), abs=1e-4)
    x, _, z = first["center"]
    assert first["distance"] == pytest.approx(math.hypot(x, z), abs=1e-3)
    assert first["alpha"] == pytest.approx(first["yaw"] - math.atan2(x, z), abs=1e-3)


def test_json_text_reads_back_and_keeps_numbers_on_one_line() -> None:
    content = {"a": [1.5, -2, 3e-7], "b": [{"c": []}, "[1,\n 2]", '"[3, 4]'], "d": [[1, 2], [3, 4]]}
    text = format_json(content)
    assert json.loads(text) == content
    assert '"a": [1.5, -2, 3e-07]' in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        format_json([math.nan])


def test_filter_by_class_and_score(model: Model) -> None:
    result = model.detect(street(), CAMERA)
    assert result.filter(classes=["Pedestrian"]).classes == ("Pedestrian",)
    assert result.filter(score=0.5).boxes2d.shape == (1, 4)
    assert len(result.filter(classes=())) == 0
    assert len(result) == 2  # unchanged


def test_images_are_written_in_the_format_of_their_name(model: Model, tmp_path: Path) -> None:
    result = model.detect(street(), CAMERA)
    for name, kind in (("a.png", "PNG"), ("a.jpg", "JPEG")):
        result.save_image(tmp_path / name)
        with Image.open(tmp_path / name) as written:
            assert written.format == kind and written.width >= 1242
    with pytest.raises(InputError, match=r"ends in \.png or \.jpg"):
        result.save_image(tmp_path / "a.xyz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jpg", "a.png"]


# -- images of all kinds -----------------------------------------------------------------------------------------------


def test_exif_rotation_is_applied_before_the_camera(tmp_path: Path) -> None:
    sideways = street().transpose(Image.Transpose.ROTATE_90)  # as a phone held upright stores it
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    sideways.save(tmp_path / "a.png", exif=exif)
    photo = read_input_image(tmp_path / "a.png")
    assert torch.equal(photo.image, input_image(street()).image)


def test_exif_focal_length_makes_the_camera(model: Model, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 35
    street().save(tmp_path / "a.jpg", exif=exif)
    result = model.detect(tmp_path / "a.jpg")
    assert float(result.camera.fx) == pytest.approx(35 * math.hypot(1242, 376) / 43.27)
    assert "EXIF" in result.camera_origin and not result.warnings


def test_exif_of_a_image_cropped_since_is_not_believed(model: Model, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA405: 35, 0xA002: 4000, 0xA003: 3000})
    street().save(tmp_path / "a.jpg", exif=exif)
    result = model.detect(tmp_path / "a.jpg")
    assert "guess" in result.camera_origin
    assert "taken as 4000 x 3000, cropped to 1242 x 376" in result.warnings[0]


def test_images_of_other_modes_become_rgb(tmp_path: Path) -> None:
    rgb = street()
    grey = np.asarray(rgb.convert("L"))
    same = [
        ("L", np.repeat(grey[..., None], 3, 2)),
        ("1", None),
        ("CMYK", None),
        ("RGBA", np.asarray(rgb)),
        ("P", None),
    ]
    for mode, expected in same:
        path = tmp_path / (f"{mode}.tif" if mode == "CMYK" else f"{mode}.png")
        rgb.convert(mode).save(path)
        image = read_input_image(path).image
        assert image.shape == (3, 376, 1242) and image.dtype == torch.uint8
        if expected is not None:
            assert (image.permute(1, 2, 0).numpy() == expected).all()
    deep = (grey.astype(np.uint16) << 8) + 77
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert (read_input_image(tmp_path / "deep.png").image[0].numpy() == grey).all()
    assert (input_image(deep).image[0].numpy() == grey).all()


def test_what_is_transparent_becomes_grey_not_its_hidden_colour() -> None:
    hidden = np.zeros((64, 64, 4), np.uint8)
    hidden[..., 0] = 255  # red under full transparency
    assert (input_image(hidden).image == 128).all()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((64, 64, 3), np.float32), r"float32; for values 0 to 1 give \(255"),
        (np.zeros((3, 64, 64), np.uint8), r"expected an array \(H, W, 3\)"),
        (torch.zeros(64, 64, 3, dtype=torch.uint8), r"expected a tensor \(3, H, W\)"),
        (torch.zeros(3, 64, 64), r"expected a tensor \(3, H, W\) of uint8"),
        (np.zeros((8, 900, 3), np.uint8), "900 x 8 is too small"),
        (17, "got int"),
    ],
)
def test_arrays_are_not_guessed_at(model: Model, source: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.detect(source, CAMERA)  # type: ignore[call-overload]


def test_files_that_are_no_images(tmp_path: Path) -> None:
    street().save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    street().save(tmp_path / "whole.jpg")
    jpeg = (tmp_path / "whole.jpg").read_bytes()
    broken = {
        "empty.png": b"",
        "cut.png": data[: len(data) // 2],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "header.png": data[:20],
        "text.jpg": b"not an image at all",
        "flipped.png": data[:60] + bytes(255 - b for b in data[60:]),
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name.replace(".", r"\.")) as error:
            read_input_image(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no such file"):
        read_input_image(tmp_path / "missing.png")
    with pytest.raises(InputError, match="matches no file"):
        expand(str(tmp_path / "*.webp"))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no images in this folder"):
        expand(tmp_path / "none")


# -- video -----------------------------------------------------------------------------------------------------------------


def test_video_without_pyav_names_the_pip_line(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r'pip install "monolift\[video\]"'):
        next(model.stream(tmp_path / "clip.mp4", CAMERA))


def test_video_frames_come_one_at_a_time(model: Model, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is the extra [video]")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 1242, 376, "yuv420p", 8_000_000
        for k in range(3):
            frame = street(names=("Car",) if k != 1 else ())
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    results = list(model.stream(tmp_path / "clip.mp4", CAMERA))
    assert [r.name for r in results] == ["clip_000000", "clip_000001", "clip_000002"]
    assert [len(r) for r in results] == [1, 0, 1]
    assert float(results[0].boxes.center[0, 2]) == pytest.approx(21, rel=0.05)
    (tmp_path / "broken.mp4").write_bytes(b"anything")
    with pytest.raises(InputError, match="not a readable video"):
        list(model.stream(tmp_path / "broken.mp4", CAMERA))


# -- names -----------------------------------------------------------------------------------------------------------------


def test_public_names_are_there_and_verbs_are_plain_functions() -> None:
    for name in monolift.__all__:
        assert getattr(monolift, name) is not None
    for name in ("convert", "detect", "evaluate", "train"):
        assert inspect.isfunction(getattr(monolift, name))
        assert importlib.util.find_spec(f"monolift.{name}") is None, (
            "a module of this name would hide the function"
        )
    with pytest.raises(AttributeError, match="nonsense"):
        _ = monolift.nonsense


def test_signatures_tell_the_parameters() -> None:
    assert [*inspect.signature(monolift.detect).parameters] == [
        "source", "camera", "calib", "fov", "score", "model", "device", "progress"
    ]  # fmt: skip
    assert [*inspect.signature(monolift.load).parameters] == ["name_or_path", "device", "name"]


def test_detect_in_one_call(model: Model) -> None:
    assert monolift.detect(street(), CAMERA, model=model).classes == ("Car", "Pedestrian")


def test_an_unknown_model_or_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model 'smoek'"):
        load("smoek")
    with pytest.raises(InputError, match="not a checkpoint"):
        load(tmp_path)
    for name in ("nonsense", "meta", "cuda:99", ""):
        with pytest.raises(InputError, match="not usable here"):
            pick_device(name)
