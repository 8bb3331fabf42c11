"""Boxes land on the pixels where the camera sees them, and headings point where they should."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.data.sample import Objects
from monolift.geometry import Boxes3D, Camera
from monolift.render.draw.birds_eye import GROUND, VIEW, birds_eye
from monolift.render.draw.canvas import INK, Canvas, class_color, clip_polygon, clip_segment, cut_polygon
from monolift.render.draw.overlay import draw_result, overlay

CAMERA = Camera(700.0, 700.0, 449.5, 199.5, width=900, height=400)


def car(x: float, y: float, z: float, yaw: float) -> Boxes3D:
    return Boxes3D(torch.tensor([[x, y, z]]), torch.tensor([[4.0, 1.5, 1.6]]), torch.tensor([yaw]))


def plain(grey: int = 90, width: int = 900, height: int = 400) -> torch.Tensor:
    return torch.full((3, height, width), grey, dtype=torch.uint8)


def changed(image: Image.Image, grey: int = 90) -> np.ndarray:
    return (np.abs(np.asarray(image).astype(int) - grey) > 12).any(-1)


def like(image: Image.Image, color: tuple[int, int, int], tolerance: int = 40) -> np.ndarray:
    return (np.abs(np.asarray(image).astype(int) - np.array(color)) < tolerance).all(-1)


def test_nothing_to_draw_leaves_the_photograph_as_it_is() -> None:
    image = torch.randint(0, 255, (3, 400, 900), dtype=torch.uint8)
    empty = Objects.named(Boxes3D.empty(), (), scores=torch.zeros(0))
    drawn = np.asarray(overlay(image, CAMERA, empty))
    assert (drawn == image.permute(1, 2, 0).numpy()).all()


def test_every_projected_corner_is_drawn_and_nothing_beyond_the_box() -> None:
    boxes = car(2.0, 1.0, 12.0, 0.7)
    drawn = changed(overlay(plain(), CAMERA, Objects.named(boxes, ["Car"])))
    for u, v in CAMERA.px_from_cam(boxes.corners()[0]).round().int().tolist():
        assert drawn[v - 1 : v + 2, u - 1 : u + 2].any()
    x1, y1, x2, y2 = boxes.projected(CAMERA)[0].tolist()
    below = drawn[int(y2) + 4 :]
    beside = drawn[int(y1) : int(y2), : int(x1) - 4]
    assert not below.any() and not beside.any()


def test_the_tinted_face_is_the_front() -> None:
    """Heading to the right (yaw 0) tints the right end of the box, heading to the left the left end."""
    for yaw, front_is_right in ((0.0, True), (math.pi, False)):
        boxes = car(0.0, 1.5, 10.0, yaw)
        image = np.asarray(overlay(plain(), CAMERA, Objects.named(boxes, ["Car"]))).astype(int)
        corners = CAMERA.px_from_cam(boxes.corners()[0])
        # a point inside the right and left end face, off its diagonals; seen from the middle both ends show their inside
        for end, sign in (("right", 1), ("left", -1)):
            point = boxes.center[0] + torch.tensor([sign * 2.0, 0.0, 0.45])
            u, v = CAMERA.px_from_cam(point).round().int().tolist()
            tinted = abs(image[v, u] - 90).max() > 15
            assert tinted == ((end == "right") == front_is_right), (yaw, end)
        assert corners.isfinite().all()


def test_boxes_that_reach_behind_the_camera_are_cut_and_those_behind_are_not_drawn() -> None:
    behind = overlay(plain(), CAMERA, Objects.named(car(0.0, 1.0, -5.0, 0.0), ["Car"]))
    assert not changed(behind).any()
    crossing = car(1.6, 1.0, 1.0, math.pi / 2)  # from 1 m behind to 3 m ahead, to the right of the camera
    drawn = changed(overlay(plain(), CAMERA, Objects.named(crossing, ["Car"], scores=torch.tensor([0.5]))))
    assert drawn[:, 600:].any()
    assert not drawn[:, :440].any()  # corners behind would project to the left


def test_labels_beside_detections_are_white_and_dashed() -> None:
    boxes = car(0.0, 1.0, 12.0, 0.0)
    far = car(0.0, 1.0, 60.0, 0.0)
    both = overlay(plain(), CAMERA, Objects.named(far, ["Car"]), Objects.named(boxes, ["Car"]))
    bottom = CAMERA.px_from_cam(
        boxes.corners()[0][[0, 3]]
    )  # the far bottom edge lies behind; take the near one below
    near = CAMERA.px_from_cam(boxes.corners()[0][[1, 2]])
    v = round(float(near[0, 1]))
    u1, u2 = sorted(near[:, 0].round().int().tolist())
    row = like(both, (255, 255, 255))[v - 1 : v + 2, u1 + 2 : u2 - 2].any(0)
    changes = int((row[1:] != row[:-1]).sum())
    assert row.any() and changes >= 6, "a full line or none, not dashes"
    assert bottom.isfinite().all()


def test_birds_eye_places_right_on_the_right_and_far_away_from_the_camera() -> None:
    scene = Boxes3D(
        torch.tensor([[5.0, 1.0, 20.0], [-8.0, 1.0, 30.0]]),
        torch.tensor([[4.0, 1.5, 1.8]] * 2),
        torch.zeros(2),
    )
    objects = Objects.named(scene, ["Car", "Pedestrian"])
    for forward in ("up", "right"):
        panel = birds_eye(CAMERA, objects, along=800, forward=forward)
        places = {}
        for name in objects.classes:
            # the solid arrowhead, so that the legend's thin stroke does not matter
            rows, columns = np.nonzero(like(panel, class_color(name), 12))
            central = (rows > 60) & (rows < panel.height - 60)
            places[name] = (np.median(columns[central]), np.median(rows[central]))
        (u_car, v_car), (u_walker, v_walker) = places["Car"], places["Pedestrian"]
        if forward == "up":
            assert u_car > panel.width / 2 > u_walker and v_walker < v_car
        else:  # turned clockwise: forward is right, right is down
            assert v_car > panel.height / 2 > v_walker and u_walker > u_car


@pytest.mark.parametrize(
    ("yaw", "direction"), [(0.0, (1, 0)), (-math.pi / 2, (0, 1)), (math.pi, (-1, 0)), (math.pi / 2, (0, -1))]
)
def test_birds_eye_arrowheads_point_along_the_heading(yaw: float, direction: tuple[int, int]) -> None:
    """The solid arrowhead fills the front half: its middle lies ahead of the box's, in (x, z)."""
    boxes = car(0.0, 1.0, 15.0, yaw)
    panel = birds_eye(CAMERA, Objects.named(boxes, ["Car"]), along=800, forward="up")
    solid = like(panel, class_color("Car"), 12)
    solid[panel.height - 80 :] = False  # the legend
    rows, columns = np.nonzero(solid)
    box = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    ahead = np.array([columns.mean() - box[1], box[0] - rows.mean()])
    assert ahead @ np.array(direction) > 2, ahead


def test_the_view_is_as_wide_as_the_image_sees() -> None:
    narrow = birds_eye(Camera(2000.0, 2000.0, 449.5, 199.5, width=900, height=400), along=600)
    wide = birds_eye(Camera(400.0, 400.0, 449.5, 199.5, width=900, height=400), along=600)
    share = [like(panel, VIEW, 2).mean() / like(panel, GROUND, 2).mean() for panel in (narrow, wide)]
    assert share[0] < 0.6 < share[1]


def test_wide_images_get_the_panel_below_and_others_beside() -> None:
    objects = Objects.named(car(0.0, 1.0, 12.0, 0.0), ["Car"], scores=torch.tensor([0.9]))
    below = draw_result(plain(), CAMERA, objects)
    assert below.width == 900 and below.height > 400 + 200
    square = Camera(700.0, 700.0, 449.5, 399.5, width=900, height=800)
    beside = draw_result(plain(90, 900, 800), square, objects)
    assert beside.height == 800 and beside.width > 900 + 200


def test_small_images_are_enlarged_with_their_camera() -> None:
    small = Camera(350.0, 350.0, 224.5, 99.5, width=450, height=200)
    boxes = car(2.0, 1.0, 12.0, 0.7)
    drawn = overlay(plain(90, 450, 200), small, Objects.named(boxes, ["Car"]))
    assert drawn.size == (800, 356)
    x, y = small.after_resize(800, 356).px_from_cam(boxes.corners()[0, 1]).round().int().tolist()
    assert changed(drawn)[y - 1 : y + 2, x - 1 : x + 2].any()


def test_labels_never_cover_each_other() -> None:
    canvas = Canvas(Image.new("RGB", (400, 200)))
    spots = [
        canvas.label([(200.0, 100.0 - 22 * k) for k in range(8)], "Car 12 m", 14, (255, 255, 255))
        for _ in range(9)
    ]
    placed = [s for s in spots if s is not None]
    assert len(placed) == 4  # the last ones find no room above
    for i, a in enumerate(placed):
        for b in placed[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_clipping_a_segment() -> None:
    area = (0.0, 0.0, 10.0, 10.0)
    clipped = clip_segment(np.array([-10.0, 5.0]), np.array([20.0, 5.0]), area)
    assert clipped is not None
    assert np.allclose(clipped, [[0, 5], [10, 5]])
    assert clip_segment(np.array([-1.0, -1.0]), np.array([-5.0, 20.0]), area) is None
    inside = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert np.allclose(clip_segment(*inside, area) or 0, inside)


def test_clipping_a_polygon_keeps_the_area_inside() -> None:
    square = np.array([[-5.0, -5.0], [5.0, -5.0], [5.0, 5.0], [-5.0, 5.0]])
    cut = clip_polygon(square, (0.0, 0.0, 10.0, 10.0))
    assert _area(cut) == pytest.approx(25.0)
    assert len(clip_polygon(square + 100, (0.0, 0.0, 10.0, 10.0))) == 0
    half = cut_polygon(square, square[:, 0] + square[:, 1])  # along the diagonal
    assert _area(half) == pytest.approx(50.0)


def _area(points: np.ndarray) -> float:
    x, y = points.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


@pytest.mark.parametrize("size", [(32, 60_000), (60_000, 32), (32, 12_000)])
def test_a_strip_of_an_image_is_drawn_in_little_memory(size: tuple[int, int]) -> None:
    """As tall as the image, its panel would take gigabytes."""
    width, height = size
    camera = Camera(700.0, 700.0, width / 2, height / 2, width=width, height=height)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    drawn = draw_result(image, camera, Objects.named(car(0.0, 1.0, 20.0, 0.0), ["Car"]))
    assert drawn.width >= width and drawn.height >= height
    assert drawn.width * drawn.height < 60_000_000


def test_a_canvas_draws_parts_as_it_would_draw_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes that do not touch are enlarged apart; the pixels are those of one enlarged image."""
    pixels = np.random.default_rng(3).integers(0, 256, (240, 400, 3), dtype=np.uint8)

    def drawn() -> tuple[np.ndarray, int]:
        canvas = Canvas(Image.fromarray(pixels))
        for left in (-8.0, 60.0, 150.0, 380.0):
            corner = np.array([[left, 20.0], [left + 31.3, 27.7], [left + 12.1, 61.2]])
            canvas.polygon(corner, INK, 0.4)
            canvas.line(corner, INK, 2.2, dash=5.0 if left == 60.0 else None)
            canvas.label([(left + 10, 120.0)], "Car", 12.0, INK)
        canvas.arc(np.array([300.0, 200.0]), 33.0, INK, 1.2)
        groups = len(canvas._groups())
        return np.asarray(canvas.finish()), groups

    parts, several = drawn()
    monkeypatch.setattr(Canvas, "_groups", lambda self: [self._shapes])
    whole, one = drawn()
    assert several > 4 and one == 1
    np.testing.assert_array_equal(parts, whole)
    assert (parts[130:160] == pixels[130:160]).all()


def test_a_class_name_that_is_no_text_has_a_color() -> None:
    assert len(class_color("\ud800")) == 3
