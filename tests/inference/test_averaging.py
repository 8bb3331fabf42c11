"""Test-time augmentation: views that hold the image, means of the same objects, and mirror images that come back."""

from __future__ import annotations

import math

import pytest
import torch

from fake_detector import FakeDetector
from monolift.cli import main
from monolift.data.sample import Objects
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera
from monolift.inference.averaging import Averaging, average, zoomed
from monolift.inference.detect import detect_samples
from monolift.inference.model import Model
from monolift.methods.roi10d import ROI10D
from monolift.methods.smoke import Smoke, SmokeConfig
from street import CAMERA, street

NAMES = ("Car", "Pedestrian")


def found(rows: list[tuple[float, ...]]) -> Objects:
    """Rows of label, score, x y z, yaw, and x1 y1 x2 y2."""
    t = torch.tensor(rows).reshape(-1, 10)
    boxes = Boxes3D(t[:, 2:5], torch.tensor([[4.0, 1.5, 1.6]]).expand(len(t), 3), t[:, 5])
    return Objects(boxes, t[:, 1], t[:, 0].long(), t[:, 6:10], NAMES)


def test_an_object_in_every_view_and_one_in_a_single_view() -> None:
    first = found([
        (0, 0.9, 1.0, 1.0, 10.0, 3.1, 100, 100, 200, 200),
        (0, 0.6, -5.0, 1.0, 20.0, 0.0, 10, 90, 50, 120),
    ])  # fmt: skip
    second = found([
        (0, 0.9, 1.6, 1.6, 16.0, -3.1, 104, 100, 204, 200),
        (1, 0.8, 1.0, 1.0, 10.0, 0.0, 100, 100, 200, 200),
        (0, 0.3, 9.0, 1.0, 9.0, 0.0, 107, 100, 207, 200),  # a duplicate of the first
    ])  # fmt: skip
    both = average([first, second])
    assert both.classes == ("Car", "Pedestrian", "Car")
    assert both.scores is not None and both.boxes2d is not None
    torch.testing.assert_close(both.scores, torch.tensor([0.9, 0.4, 0.3]))
    # the geometric mean of 10 and 16 m along the ray that both share; headings meet at pi, not at 0
    torch.testing.assert_close(both.boxes.center[0], torch.tensor([0.1, 0.1, 1.0]) * math.sqrt(160))
    assert abs(float(both.boxes.yaw[0])) == pytest.approx(math.pi, abs=1e-3)
    torch.testing.assert_close(both.boxes2d[0], torch.tensor([102.0, 100.0, 202.0, 200.0]))


def test_numbers_are_weighted_by_the_scores() -> None:
    views = [
        found([(0, score, 0.0, 0.0, z, yaw, 0, 0, 100, 100)])
        for score, z, yaw in ((0.6, 10, 0.2), (0.2, 20, 0.6))
    ]
    one = average(views)
    assert one.scores is not None and one.scores.tolist() == pytest.approx([0.4])
    assert float(one.boxes.center[0, 2]) == pytest.approx(10**0.75 * 20**0.25, rel=1e-5)
    sine, cosine = (0.75 * f(0.2) + 0.25 * f(0.6) for f in (math.sin, math.cos))
    assert float(one.boxes.yaw[0]) == pytest.approx(math.atan2(sine, cosine), abs=1e-5)


def test_views_without_objects_and_a_single_view() -> None:
    assert len(average([found([]), found([])])) == 0
    row = found([(0, 0.9, 1.0, 1.0, 10.0, 1.0, 100, 100, 200, 200)])
    same = average([row])
    torch.testing.assert_close(same.boxes.center, row.boxes.center)
    torch.testing.assert_close(same.scores, row.scores)
    lonely = average([found([]), row])
    assert lonely.scores is not None and lonely.scores.tolist() == pytest.approx([0.45])


@pytest.mark.parametrize("zoom", [0.8, 1.0, 1.3])
@pytest.mark.parametrize("size", [(1242, 375), (600, 800), (33, 40)])
def test_a_zoomed_view_holds_the_image(zoom: float, size: tuple[int, int]) -> None:
    plain = Smoke(SmokeConfig(head_channels=8)).view(*size)
    view = zoomed(plain, zoom, *size)
    assert view.width % 32 == 0 and view.height % 32 == 0 and view.scale == plain.scale * zoom
    if zoom == 1:
        assert view == plain
    assert view.width >= size[0] * view.scale - 32 * 0.31 - 1  # a third of a coarse cell is lost at most


@pytest.mark.parametrize(
    "options", [{"zooms": (0.8, 1.0, 1.3)}, {"flip": True}, {"zooms": [1.0], "flip": True}]
)
def test_an_exact_detector_finds_the_same_in_every_view(options: dict[str, object]) -> None:
    model = Model(FakeDetector().eval(), "fake")
    plain, averaged = model.detect(street(), CAMERA), model.detect(street(), CAMERA, **options)
    assert plain.classes == averaged.classes == NAMES
    torch.testing.assert_close(averaged.scores, plain.scores)
    torch.testing.assert_close(averaged.boxes.center, plain.boxes.center, rtol=0.05, atol=0.05)
    torch.testing.assert_close(averaged.boxes2d, plain.boxes2d, rtol=0, atol=2.5)
    if "flip" in options:  # 0.3 and its mirror image's pi - 0.3, which the detector gives as 0.3 again
        assert [abs(float(y)) for y in averaged.boxes.yaw] == pytest.approx([math.pi / 2] * 2, abs=1e-4)
    assert set(averaged.timings) == set(plain.timings)


def test_one_plain_view_is_the_plain_detection() -> None:
    torch.manual_seed(0)
    model = Model(Smoke(SmokeConfig(input_width=128, input_height=64, head_channels=8)).eval())
    plain, same = (model.detect(street(), CAMERA, score=0.0, zooms=zooms) for zooms in (None, (1.0,)))
    assert len(plain) == len(same) > 10
    torch.testing.assert_close(plain.boxes.center, same.boxes.center, rtol=1e-4, atol=1e-4)


def test_mirrored_images_give_mirrored_objects() -> None:
    torch.manual_seed(0)
    detector = Smoke(SmokeConfig(input_width=128, input_height=64, head_channels=8)).eval()
    image = torch.randint(0, 256, (3, 64, 128), dtype=torch.uint8)
    camera = Camera(100.0, 100.0, 60.0, 30.0, 0.06, 0.0, 0.0, width=128, height=64)
    both = Averaging((1.0,), flip=True)
    (one,) = detect_samples(detector, [image], [camera], averaging=both)
    (other,) = detect_samples(detector, [image.flip(-1)], [camera.after_mirror()], averaging=both)
    assert len(one.objects) == len(other.objects) > 5
    back = other.objects.boxes.mirrored().center
    for center in one.objects.boxes.center[:5]:
        assert float((back - center).norm(dim=1).min()) < 1e-2 * float(center.norm())


class Counting(FakeDetector):
    """Remembers the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.batches.append((len(images), *images.shape[2:]))
        return super().forward(images)


def test_views_of_one_size_share_a_batch() -> None:
    detector = Counting()
    model = Model(detector.eval(), "fake", {"score": 0.5, "averaged_score": 0.3})
    results = model.detect([street()] * 3, CAMERA, zooms=(0.8, 1.0), flip=True)
    assert sorted(n for n, *_ in detector.batches) == [6, 6]
    assert all(r.classes == NAMES for r in results)  # the averaged score's limit, below the pedestrian's 0.4
    assert model.detect(street(), CAMERA).classes == ("Car",)


def test_what_cannot_be_averaged_is_refused() -> None:
    for zooms in ((9.0,), (), (math.nan,)):
        with pytest.raises(InputError, match=r"zooms: expected numbers from 0\.25 to 4"):
            Averaging(zooms)
    assert Averaging.of(None, False) is None and not ROI10D.averages
    detector = FakeDetector().eval()
    detector.averages = False
    with pytest.raises(InputError, match="zooms and flip: fake gives shapes"):
        Model(detector, "fake").detect(street(), CAMERA, flip=True)
    with pytest.raises(InputError, match="zooms and flip: fake gives shapes"):
        Model(detector, "fake").stream([], zooms=(1.0, 0.8))  # at once, not for each image


def test_zooms_of_the_command_line_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "x.jpg", "--zooms", "0.8,big", "--save", "none"]) == 2
    assert "--zooms: expected numbers separated by commas, got '0.8,big'" in capsys.readouterr().err
