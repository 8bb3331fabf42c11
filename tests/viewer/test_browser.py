"""The viewer in a real headless browser: what it shows, what a click does, what it asks the network for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from browser import Browser, find_browser
from monolift.data.formats.kitti_format import read_labels
from monolift.data.sample import Objects
from monolift.geometry import EDGES, Boxes3D, Camera
from monolift.geometry.boxes import NEAR_PLANE
from monolift.render.draw.canvas import class_color
from monolift.viewer import Scene, scene_html
from monolift.viewer.open import open_frames
from monolift.viewer.server import ViewerServer
from viewer_scenes import toy_scene, toy_world

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome on the path")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM) as opened:
        yield opened


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_world(tmp_path_factory.mktemp("world"), 3)


@pytest.fixture(scope="module")
def scenes(world: Path) -> list[Scene]:
    return [toy_scene(world, f"{k:06d}") for k in range(3)]


@pytest.fixture(scope="module")
def page(scenes: list[Scene], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "scenes.html"
    file.write_text(scene_html(scenes, "toys"), encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def in_order(browser: Browser) -> Iterator[None]:
    yield
    assert browser.complaints() == []


def camera_pixels(scene: Scene, points: torch.Tensor) -> torch.Tensor:
    assert scene.camera is not None
    return scene.camera.px_from_cam(points.double())


# -- loading --------------------------------------------------------------------------------------------------------------


def test_it_loads_from_disk_without_errors_and_asks_for_nothing_else(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.requests() == [page.as_uri()]
    assert browser.text("h1") == "toys"
    assert browser.text("#summary") == "3 objects, 3 labels"
    assert browser.js("monolift.space.renderer !== undefined")


def test_it_fits_a_phone(browser: Browser, page: Path) -> None:
    browser.open(page, width=390, height=844)
    assert browser.js("document.documentElement.scrollWidth") == 390
    small = browser.js(
        "[...document.querySelectorAll('button')].filter(b => b.offsetParent && b.offsetHeight < 36).length"
    )
    assert small == 0


# -- geometry: the image and the scene show the same world ----------------------------------------------------------------


def test_projected_boxes_are_where_geometry_puts_them(
    browser: Browser, page: Path, scenes: list[Scene]
) -> None:
    browser.open(page)
    for i, corners in enumerate(scenes[0].objects.boxes.corners()):
        path = browser.js(f"document.querySelector('[data-id=p{i}] .edges').getAttribute('d')")
        lines = [[float(v) for v in part.replace("L", " ").split()] for part in path.split("M")[1:]]
        expected = camera_pixels(scenes[0], corners)
        for (a, b), line in zip(EDGES, lines, strict=False):
            assert line == pytest.approx([*expected[a].tolist(), *expected[b].tolist()], abs=0.02)


def test_a_box_beside_the_camera_is_cut_at_the_near_plane(browser: Browser, tmp_path: Path) -> None:
    camera = Camera(700, 710, 620, 180, 0.06, 0.01, 0.003, width=1242, height=375)
    box = Boxes3D(torch.tensor([[1.6, 1.0, 1.0]]), torch.tensor([[4.2, 1.5, 1.7]]), torch.tensor([1.2]))
    image = torch.full((3, 375, 1242), 90, dtype=torch.uint8)
    scene = Scene("near", image, camera, Objects.named(box, ("Car",), scores=torch.tensor([0.5])))
    (tmp_path / "near.html").write_text(scene_html([scene]))
    browser.open(tmp_path / "near.html")
    points = browser.js("document.querySelector('[data-id=p0] .edges').getAttribute('d')")
    numbers = np.array(points.replace("M", " ").replace("L", " ").split(), float).reshape(-1, 2)
    got = np.concatenate([numbers.min(0), numbers.max(0)])
    np.testing.assert_allclose(got, box.projected(camera, clip=False)[0].numpy(), atol=0.5)
    assert float(camera.depth(box.corners()).min()) < NEAR_PLANE  # it does reach behind the camera


def test_the_3d_scene_seen_from_the_camera_is_the_image(
    browser: Browser, page: Path, scenes: list[Scene]
) -> None:
    """One scale and one shift carry pixels to the screen: nothing is mirrored, sheared or turned over."""
    browser.open(page)
    browser.press("2")
    corners = scenes[0].objects.boxes.corners().reshape(-1, 3)
    screen = np.array(browser.js(f"{json.dumps(corners.tolist())}.map(p => monolift.space.screenOf(p))"))
    pixels = camera_pixels(scenes[0], corners).numpy()
    for axis in (0, 1):
        scale, shift = np.polyfit(pixels[:, axis], screen[:, axis], 1)
        assert scale > 0
        np.testing.assert_allclose(scale * pixels[:, axis] + shift, screen[:, axis], atol=0.05)
    camera = scenes[0].camera
    assert camera is not None
    scales = [np.polyfit(pixels[:, k], screen[:, k], 1)[0] for k in (0, 1)]
    # this camera's pixels are not quite square
    assert scales[0] * float(camera.fx) == pytest.approx(scales[1] * float(camera.fy), rel=1e-4)


def test_from_above_right_is_right_and_ahead_is_up(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.press("3")
    points = browser.js("[[0, 1.65, 20], [5, 1.65, 20], [0, 1.65, 30]].map(p => monolift.space.screenOf(p))")
    assert points[1][0] > points[0][0] + 5 and points[1][1] == pytest.approx(points[0][1], abs=1)
    assert points[2][1] < points[0][1] - 5 and points[2][0] == pytest.approx(points[0][0], abs=1)


def test_boxes_in_3d_are_those_of_geometry(browser: Browser, page: Path, scenes: list[Scene]) -> None:
    browser.open(page)
    drawn = browser.js(
        "['p0', 'p1', 'p2'].map(id => { const v = monolift.space.views.get(id).body; v.updateMatrixWorld();"
        " const a = v.geometry.attributes.position; const inverse = monolift.space.world.matrixWorld.clone().invert();"
        " return [...Array(a.count).keys()].map(k => { const p = v.position.clone().fromBufferAttribute(a, k);"
        " return p.applyMatrix4(v.matrixWorld).applyMatrix4(inverse).toArray(); }); })"
    )
    for vertices, corners in zip(drawn, scenes[0].objects.boxes.corners(), strict=True):
        apart = torch.cdist(torch.tensor(vertices), corners)
        assert apart.amin(1).max() < 1e-3 and apart.amin(0).max() < 1e-3


# -- selection, filters, frames -------------------------------------------------------------------------------------------


def middle_of(browser: Browser, selector: str) -> list[float]:
    found: list[float] = browser.js(
        f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector('{selector}').getBoundingClientRect())"
    )
    return found


def expect_selected(browser: Browser, scene: Scene, k: int) -> None:
    """Lit up in image, list and 3D, and the numbers shown are the box's."""
    box = scene.objects.boxes[k]
    assert browser.js("monolift.store.selected") == f"p{k}"
    assert browser.js(f"document.querySelector('#image .selected').dataset.id === 'p{k}'")
    assert browser.js(f"document.querySelector('#lists .selected').dataset.id === 'p{k}'")
    widths = browser.js("[...monolift.space.views.values()].map(v => v.lines.material.linewidth)")
    assert widths[k] == max(widths) and widths.count(max(widths)) == 1
    shown = {
        name: browser.text(f"[data-field={name}]")
        for name in ("x", "y", "z", "length", "height", "width", "yaw")
    }
    values = [*box.center[0].tolist(), *box.size[0].tolist(), float(torch.rad2deg(box.yaw[0]))]
    for (name, text), value in zip(shown.items(), values, strict=True):
        assert float(text.rstrip("°")) == pytest.approx(value, abs=0.051 if name == "yaw" else 0.0051), name


def test_a_click_selects_everywhere(browser: Browser, page: Path, scenes: list[Scene]) -> None:
    browser.open(page)
    browser.js("monolift.store.set({layers: {...monolift.store.layers, labels: false}})")  # nothing in front
    browser.click(*middle_of(browser, "[data-id=p1] .hit"))
    expect_selected(browser, scenes[0], 1)
    assert "± 0.60" in browser.text("#details")  # sigma of z ahead
    browser.press("Escape")
    assert browser.js("monolift.store.selected") is None and browser.text("#details") == ""
    browser.click_on("#lists [data-id=p2]")
    expect_selected(browser, scenes[0], 2)
    browser.press("3")
    browser.click(*browser.js(f"monolift.space.screenOf({scenes[0].objects.boxes.center[0].tolist()})"))
    expect_selected(browser, scenes[0], 0)


def test_filters_hide_everywhere(browser: Browser, page: Path) -> None:
    browser.open(page)

    def shown() -> tuple[int, int, int]:
        counts = browser.js(
            "[document.querySelectorAll('#image g.found').length, document.querySelectorAll('#lists [data-id^=p]').length,"
            " [...monolift.space.views].filter(([id, v]) => id[0] === 'p' && v.group.visible).length]"
        )
        return tuple(counts)

    assert shown() == (3, 3, 3)
    browser.slide("#score", 0.5)
    assert shown() == (2, 2, 2) and browser.text("#summary") == "2 of 3 objects, 3 labels"
    browser.click_on("[data-class=Car]")
    assert shown() == (0, 0, 0)
    browser.click_on("[data-class=Car]")
    browser.press("l")
    assert browser.js("document.querySelectorAll('#image g.label').length") == 0
    assert browser.js("monolift.space.views.get('l0').group.visible") is False


def test_frames_follow_slider_keys_and_play(browser: Browser, page: Path, scenes: list[Scene]) -> None:
    browser.open(page)
    browser.slide("#frame", 2)
    browser.wait("monolift.store.frame.index === 2")
    center = browser.js("monolift.store.frame.found[0].center")
    assert center == pytest.approx(scenes[2].objects.boxes.center[0].tolist(), abs=1e-4)
    assert browser.text("#place") == "000002 (3 of 3)"
    browser.press("Home")
    browser.wait("monolift.store.frame.index === 0")
    browser.click_on("#play")
    browser.wait("monolift.store.frame.index === 2 && !monolift.player.playing")


def test_the_screen_shows_the_boxes_in_their_colour(
    browser: Browser, page: Path, scenes: list[Scene]
) -> None:
    """Of pixels in the class's colour within the image nine in ten lie on a projected box, and each box has some."""
    browser.open(page)
    browser.press("l")
    browser.js("document.querySelectorAll('.tag').forEach(tag => tag.remove())")  # names have the colour too
    for theme in ("light", "dark"):
        screen = browser.screenshot().astype(int)
        left, top, width, height = browser.js(
            "(r => [r.x, r.y, r.width, r.height])(document.querySelector('#image').getBoundingClientRect())"
        )
        part = screen[round(top) : round(top + height), round(left) : round(left + width)]
        rows, columns = np.nonzero(np.abs(part - np.array(class_color("Car"))).max(2) < 12)
        assert len(rows) > 400
        scale = 621 / width
        inside = np.zeros(len(rows), bool)
        for x1, y1, x2, y2 in scenes[0].objects.boxes.projected(scenes[0].camera).tolist():
            near_x = (columns * scale > x1 - 4) & (columns * scale < x2 + 4)
            here = near_x & (rows * scale > y1 - 4) & (rows * scale < y2 + 4)
            assert here.sum() > 50
            inside |= here
        assert inside.mean() > 0.9
        assert screen[5, 5].min() > 200 if theme == "light" else screen[5, 5].max() < 60
        browser.press("t")


def test_the_3d_view_paints_boxes_at_their_places(browser: Browser, page: Path, scenes: list[Scene]) -> None:
    browser.open(page, dark=True)
    for key in "lmpuig3":  # boxes alone, from above
        browser.press(key)
    screen = browser.screenshot().astype(int)
    left, top, right, bottom = browser.js(
        "(r => [r.left, r.top, r.right, r.bottom].map(Math.round))(document.querySelector('#space').getBoundingClientRect())"
    )
    blue = np.abs(screen - np.array(class_color("Car"))).max(2) < 40
    blue[: top + 50] = blue[bottom:] = False  # the buttons' row, the player
    blue[:, :left] = blue[:, right:] = False
    rows, columns = np.nonzero(blue)
    covered = np.zeros(len(rows), bool)
    for corners in scenes[0].objects.boxes.corners():
        at = np.array(browser.js(f"{json.dumps(corners.tolist())}.map(p => monolift.space.screenOf(p))"))
        (x1, y1), (x2, y2) = at.min(0) - 3, at.max(0) + 3
        here = (columns > x1) & (columns < x2) & (rows > y1) & (rows < y2)
        assert here.sum() > 20
        covered |= here
    assert covered.mean() > 0.98


# -- review -----------------------------------------------------------------------------------------------------------------


def test_a_review_is_saved_as_kitti_labels(browser: Browser, world: Path, tmp_path: Path) -> None:
    with ViewerServer(open_frames(world), "world", save_to=tmp_path / "reviewed") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.open(server.url)
        assert all(url.startswith(server.url) for url in browser.requests())
        browser.click_on("#lists [data-id=p0]")
        browser.press("r")
        browser.click_on("#lists [data-id=p1]")
        for _ in range(3):
            browser.press("ArrowUp", shift=True)  # 0.15 m further
        browser.press("e")  # turned by a degree
        browser.press("a")
        browser.click_on("#accept-rest")
        browser.press("s")
        browser.wait("document.querySelector('#review').innerText.includes('saved 2 labels')")
        server.shutdown()
    before = read_labels(world / "label_2" / "000000.txt")
    after = read_labels(tmp_path / "reviewed" / "label_2" / "000000.txt")
    assert len(after) == 2
    np.testing.assert_allclose(after.bottom[0] - before.bottom[1], [0, 0, 0.15], atol=0.006)
    np.testing.assert_allclose(after.size_hwl[0], before.size_hwl[1], atol=0.006)
    assert np.rad2deg(after.rotation_y[0] - before.rotation_y[1]) == pytest.approx(1, abs=0.4)
    assert after.boxes2d[0, 3] < before.boxes2d[1, 3]  # further away, it stands higher in the image
    assert after.spelling[1] == before.spelling[2]  # not touched, kept digit by digit
