"""The runtime without torch, against the originals it repeats."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monolift.augment.view import View, letterbox, network_view
from monolift.data.cameras import CameraChoice
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera
from monolift.inference.results import Results3D
from monolift.methods.base import in_source
from monolift.methods.smoke import SmokeConfig, official, paper
from monolift.methods.smoke.codec import SmokeCodec
from monolift.methods.smoke.config import Extensions, Quirks
from monolift.methods.smoke.decode import decode_maps
from monolift.methods.ss3d import PRESETS as SS3D_PRESETS
from monolift.methods.ss3d import SS3DConfig
from monolift.methods.ss3d.codec import SS3DCodec
from monolift.methods.ss3d.decode import decode_maps as decode_ss3d
from monolift.runtime import Model, RuntimeInputError, load, read_camera, smoke, ss3d
from monolift.runtime.lens import Lens, best_of_rivals, rectangles
from monolift.runtime.window import window_for
from noisy_cars import noisy_cars

KITTI = Camera(721.5377, 721.5377, 609.5593, 172.854, 0.0598, -0.0004, 0.0027, width=1242, height=375)
CONFIGS = {
    "default": SmokeConfig(),
    "paper": paper(),
    "official": official(),
    "log depth": SmokeConfig(
        extensions=Extensions(log_depth=True, depth_calibration=(0.02, 0.03, -0.1), height_depth=True)
    ),
    "bins and rays": SmokeConfig(
        extensions=Extensions(binned_heading=True, heading_bins=8, ray_terms=True, height_depth=True)
    ),
    "rivals": SmokeConfig(extensions=Extensions(rival_score=0.3)),
    "quaternion": SmokeConfig(quirks=Quirks(quaternion=True), boxes2d=False, location_scale=False, nms=0.0),
}


def lens_of(camera: Camera) -> Lens:
    return Lens.of(camera.matrix.numpy(), camera.width, camera.height)


def random_raw(codec: SmokeCodec, height: int, width: int, seed: int) -> dict[str, torch.Tensor]:
    """Maps with a few hundred peaks, some of two classes at one place, and numbers that put boxes all around the camera."""
    generator = torch.Generator().manual_seed(seed)
    classes = len(codec.config.classes)
    heatmap = torch.randn(1, classes, height, width, generator=generator) * 2 - 2
    heatmap[:, 1] = torch.maximum(heatmap[:, 1], heatmap[:, 0] - 0.3)
    return {
        "heatmap": heatmap,
        "regression": torch.randn(1, codec.channels, height, width, generator=generator),
    }


@pytest.mark.parametrize("fit", ["area", "letterbox", "width-crop"])
@pytest.mark.parametrize("size", [(1242, 375), (375, 1242), (640, 480), (33, 900)])
def test_window_and_image_are_those_of_the_detector(fit: str, size: tuple[int, int]) -> None:
    width, height = size
    config = SmokeConfig(fit=fit, input_width=416, input_height=128)
    view, window = network_view(config, width, height), window_for(asdict(config), width, height)
    assert View(window.scale, window.left, window.top, window.width, window.height) == view
    image = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(0)).byte()
    assert np.array_equal(window.image(image.permute(1, 2, 0).numpy()), view.image(image).numpy())
    seen = view.camera(Camera(700, 710, width / 2, height / 3, 0.06, width=width, height=height))
    lens = window.lens(Lens(700, 710, width / 2, height / 3, 0.06, width=width, height=height))
    for name in ("fx", "fy", "cx", "cy", "tx", "ty", "tz"):
        assert getattr(lens, name) == pytest.approx(float(getattr(seen, name)), abs=1e-9), name


@pytest.mark.parametrize("name", CONFIGS)
def test_decodes_as_smoke_does(name: str) -> None:
    codec = SmokeCodec(CONFIGS[name])
    camera = letterbox(1242, 375, 416, 128).camera(KITTI)
    for seed in range(4):
        raw = random_raw(codec, 32, 104, seed)
        expected = decode_maps(codec, raw, Camera.stack([camera]))[0]
        arrays = {key: maps[0].numpy() for key, maps in raw.items()}
        found = smoke.decode(arrays, lens_of(camera), asdict(CONFIGS[name]))
        assert len(found) == len(expected) > 20
        assert found.labels.tolist() == expected.labels.tolist()
        # float32 there, float64 here, and a network of noise: depths of up to 100 m
        for mine, theirs, atol in (
            (found.center, expected.boxes.center, 1e-4),
            (found.size, expected.boxes.size, 1e-4),
            (found.scores, expected.scores, 1e-5),
        ):
            assert np.abs(mine - theirs.numpy()).max() < atol
        turn = found.yaw - expected.boxes.yaw.numpy()
        assert np.abs((turn + math.pi) % (2 * math.pi) - math.pi).max() < 1e-4
        near = expected.boxes.corners()[..., 2].amin(1).numpy() < 0.3  # cut at 0.1 m: 1e-7 m there are pixels
        assert np.abs(found.boxes2d - expected.boxes2d.numpy())[~near].max() < 2e-2


def maps_of_cars(codec: SS3DCodec, camera: Camera, cars: int, seed: int) -> dict[str, torch.Tensor]:
    """SS3D's maps of noisy cars of two classes, each seen by nine cells that do not quite agree, and noise between them."""
    draw = torch.Generator().manual_seed(seed)
    height, width = camera.height // 4, camera.width // 4
    seen = noisy_cars(cars, camera=camera, seed=seed)
    middle = ((seen.parameters[:, :2] + seen.parameters[:, 2:4]) / 8).round().long()
    around = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2))
    at = (middle[:, None] + around).clamp_min(0).minimum(torch.tensor([width - 1, height - 1])).flatten(0, 1)
    cell, car = at[:, 1] * width + at[:, 0], torch.arange(cars).repeat_interleave(9)
    noise = 0.3 * torch.randn(len(cell), 26, generator=draw, dtype=torch.float64)
    numbers = codec.channels(seen.parameters[car] + noise * seen.sigma[car], cell, camera, width)
    parameters = torch.randn(26, height * width, generator=draw)
    parameters[:, cell] = numbers.float().T
    logits = torch.randn(1 + len(codec.config.classes), height * width, generator=draw) - 6
    logits[0] = 0
    logits[1 + car % 2, cell] = 1 + 3 * torch.rand(len(cell), generator=draw)
    log_sigma = 0.3 * torch.randn(26, height * width, generator=draw)
    maps = {"classes": logits, "parameters": parameters, "log_sigma": log_sigma}
    return {name: values.reshape(1, -1, height, width) for name, values in maps.items()}


@pytest.mark.parametrize("preset", ["default", "paper", "author", "nothing to find"])
def test_decodes_as_ss3d_does(preset: str) -> None:
    config = SS3DConfig(score=0.999) if preset == "nothing to find" else SS3D_PRESETS[preset]()
    codec = SS3DCodec(config)
    camera = letterbox(1242, 375, 832, 256).camera(KITTI)
    raw = maps_of_cars(codec, camera, 20, seed=3)
    expected = decode_ss3d(codec, raw, Camera.stack([camera]))[0]
    found = ss3d.decode({key: maps[0].numpy() for key, maps in raw.items()}, lens_of(camera), asdict(config))
    assert len(found) == len(expected) and (len(found) > 20 or preset == "nothing to find")
    assert found.labels.tolist() == expected.labels.tolist()
    for mine, theirs in (  # float32 there, float64 here
        (found.center, expected.boxes.center),
        (found.size, expected.boxes.size),
        (found.scores, expected.scores),
        (found.boxes2d, expected.boxes2d),
        (np.cos(found.yaw), expected.boxes.yaw.cos()),
    ):
        assert np.allclose(mine, theirs.numpy(), rtol=1e-3, atol=1e-3)


def test_an_empty_heatmap_gives_no_objects() -> None:
    codec = SmokeCodec(SmokeConfig())
    raw = {k: v[0].numpy() for k, v in random_raw(codec, 8, 8, 0).items()}
    raw["heatmap"] = np.full_like(raw["heatmap"], -20)
    assert len(smoke.decode(raw, lens_of(KITTI), asdict(SmokeConfig()))) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_rectangles_are_those_of_the_projected_boxes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(6, 3, generator=generator, dtype=torch.float64) * torch.tensor(
        [20, 4, 14]
    ) - torch.tensor([10, 2, 4])
    boxes = Boxes3D(
        center,
        torch.rand(6, 3, generator=generator, dtype=torch.float64) * 4 + 0.3,
        torch.rand(6, generator=generator, dtype=torch.float64) * 6,
    )
    found = rectangles(boxes.center.numpy(), boxes.size.numpy(), boxes.yaw.numpy(), lens_of(KITTI))
    assert np.allclose(found, boxes.projected(KITTI).numpy(), atol=1e-6)


def test_of_two_rivals_the_better_stays_and_other_classes_are_no_rivals() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [30, 0, 40, 10.0]])
    kept = best_of_rivals(boxes, np.array([0.5, 0.9, 0.4, 0.5]), np.array([0, 0, 1, 0]), 0.5)
    assert kept.tolist() == [1, 3, 2]


def model_of_noise() -> tuple[Model, dict[str, torch.Tensor]]:
    config = SmokeConfig(input_width=416, input_height=128)
    codec = SmokeCodec(config)
    raw = random_raw(codec, 32, 104, 5)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        assert images.dtype == np.uint8 and images.shape[1:] == (3, 128, 416)
        return {k: v.repeat(len(images), 1, 1, 1).numpy() for k, v in raw.items()}

    description = {"format": 1, "method": "smoke", "config": asdict(config), "card": {"score": 0.2}}
    return Model(description, run), raw


def test_a_photograph_gives_what_results3d_gives() -> None:
    """KITTI rows and JSON objects, number by number, of the same maps."""
    model, raw = model_of_noise()
    image = np.zeros((375, 1242, 3), np.uint8)
    found = model.detect(image, KITTI.matrix.numpy())
    config = SmokeConfig(input_width=416, input_height=128)
    view = network_view(config, 1242, 375)
    one = decode_maps(SmokeCodec(config), raw, Camera.stack([view.camera(KITTI)]))[0]
    one = in_source(one[one.scores >= 0.2], view, 1242, 375)
    result = Results3D(
        "image",
        one,
        KITTI,
        torch.zeros(3, 375, 1242, dtype=torch.uint8),
    )
    assert len(result) > 5

    def numbers(text: str) -> tuple[list[str], np.ndarray]:
        rows = [row.split() for row in text.splitlines()]
        return [row[0] for row in rows], np.array([[float(v) for v in row[1:]] for row in rows])

    (names, mine), (expected_names, expected) = numbers(found.to_kitti()), numbers(result.to_kitti())
    assert names == expected_names
    pixels = [3, 4, 5, 6]
    assert np.abs(np.delete(mine - expected, pixels, 1)).max() < 3e-4
    assert np.abs((mine - expected)[:, pixels]).max() < 0.05
    ours, theirs = found.to_dict(), result.to_dict()
    for key in ("schema", "name", "image"):
        assert ours[key] == theirs[key]
    assert [set(o) for o in ours["objects"]] == [set(o) & set(ours["objects"][0]) for o in theirs["objects"]]


def test_images_of_different_sizes_come_back_in_order() -> None:
    model, _ = model_of_noise()
    images = [np.zeros((375, 1242, 3), np.uint8), np.zeros((370, 1224, 3), np.uint8)]
    both = model.detect_batch(images, [(700, 700, 600, 180), (710, 710, 600, 180)])
    assert [f.lens.width for f in both] == [1242, 1224]
    assert both[1].center[0] == pytest.approx(model.detect(images[1], (710, 710, 600, 180)).center[0])


@pytest.mark.parametrize(
    ("image", "camera", "message"),
    [
        (np.zeros((375, 1242, 3)), (700, 700, 600, 180), "uint8"),
        (np.zeros((375, 1242), np.uint8), (700, 700, 600, 180), "uint8 RGB"),
        (np.zeros((8, 8, 3), np.uint8), (700, 700, 600, 180), "at least 32"),
        (np.zeros((375, 1242, 3), np.uint8), (700, 700, 600), "fx,fy,cx,cy"),
        (np.zeros((375, 1242, 3), np.uint8), "a,b", "fx,fy,cx,cy"),
        (np.zeros((375, 1242, 3), np.uint8), (-700, 700, 600, 180), "positive focal"),
        (np.zeros((375, 1242, 3), np.uint8), [[700, 3, 600], [0, 700, 180], [0, 0, 1]], "no skew"),
        ("nowhere.png", (700, 700, 600, 180), "nowhere.png"),
    ],
)
def test_what_cannot_be_used_is_named(image: Any, camera: Any, message: str) -> None:
    model, _ = model_of_noise()
    with pytest.raises(RuntimeInputError, match=message):
        model.detect(image, camera)


def test_files_that_are_no_export_are_named(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(RuntimeInputError, match="no such file"):
        load(tmp_path / "x.onnx")
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(RuntimeInputError, match="onnxruntime can read"):
        load(tmp_path)
    with pytest.raises(RuntimeInputError, match="engine"):
        load(tmp_path, engine="abacus")


def test_imports_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import monolift.runtime; import monolift.runtime.smoke; print('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "ok", done.stderr


def test_a_camera_of_another_image_is_refused_as_by_detect() -> None:
    model, _ = model_of_noise()
    half = np.zeros((188, 621, 3), np.uint8)
    with pytest.raises(RuntimeInputError, match="does not fit an image of 621 x 188") as ours:
        model.detect(half, KITTI.matrix.numpy())
    with pytest.raises(InputError) as theirs:
        CameraChoice.of("721.5377,721.5377,609.5593,172.854").for_image("a", 621, 188)
    assert str(ours.value).split(": ", 1)[1] == str(theirs.value).split(": ", 1)[1]
    for camera in (
        (26, 26, 609, 172),
        (1e38, 1e38, 609, 172),
        (721, 721, math.nan, 172),
        (721, 721, 609, 172, 9e9, 3),
    ):
        with pytest.raises(RuntimeInputError, match="camera: "):
            model.detect(np.zeros((375, 1242, 3), np.uint8), camera)


def test_a_camera_of_another_size_follows_the_resize_and_oddities_are_in_the_json() -> None:
    model, _ = model_of_noise()
    half = np.zeros((188, 621, 3), np.uint8)
    stated = model.detect(half, "721.5,721.5,609.6,172.9,1242,376")
    known = CameraChoice.of("721.5,721.5,609.6,172.9,1242,376").for_image("a", 621, 188)
    assert stated.lens.fx == float(known.camera.fx) and stated.lens.cx == float(known.camera.cx)
    with pytest.raises(RuntimeInputError, match="another shape"):
        model.detect(half, "721.5,721.5,609.6,172.9,1242,800")
    odd = model.detect(np.zeros((375, 1242, 3), np.uint8), (721.5, 721.5, 850, 172.9))
    assert "far from the middle" in odd.to_dict()["warnings"][0] and stated.to_dict()["warnings"] == []


P2 = "P2: 721.5 0 609.5 44.8 0 721.5 172.8 0.2 0 0 1 0.003\n"


@pytest.mark.parametrize(
    "text",
    [
        f"P0: {'0 ' * 12}\n{P2}",
        "\ufeff" + P2.replace("\n", "\r\n"),
        f"{P2}R_rect 1 0 0 0 1 0 0 0 1\n",
        f"calib_time: 09-Jan-2012\nS_rect_02: 1.242e+03 3.75e+02\nP_rect_02: {P2[4:]}",
        '{"fx": 721.5, "fy": 721.5, "cx": 609.5, "cy": 172.8}',
        '{"fx": 721.5, "fy": 721.5, "ppx": 1219.5, "ppy": 345.8, "width": 2484, "height": 750}',
        '{"K": [[721.5, 0, 609.5], [0, 721.5, 172.8], [0, 0, 1]]}',
        '{"K": [721.5, 0, 609.5, 0, 721.5, 172.8, 0, 0, 1]}',
        '{"schema": "monolift.inference.results/1", "image": {"width": 1242, "height": 375}, "camera": '
        '{"fx": 721.5, "fy": 721.5, "cx": 609.5, "cy": 172.8, "translation": [0.06, 0, 0.003]}}',
    ],
)
def test_camera_files_are_read_as_by_monolift(tmp_path: Path, text: str) -> None:
    (tmp_path / "camera").write_text(text, encoding="utf-8")
    lens, _ = Lens.checked(read_camera(str(tmp_path / "camera")), 1242, 375)
    camera = CameraChoice.of(calib=tmp_path / "camera").for_image("a", 1242, 375).camera
    for name in ("fx", "fy", "cx", "cy", "tx", "ty", "tz"):
        assert getattr(lens, name) == pytest.approx(float(getattr(camera, name)), abs=1e-12), name


@pytest.mark.parametrize(
    "text",
    ["", "P2: 1 2", P2.replace("609.5", "nan"), "{", "{}", '{"fx": null, "fy": 1, "cx": 1, "cy": 1}', '{"K": [1]}', "x",
     '{"fx": ' + "9" * 400 + ', "fy": 1, "cx": 1, "cy": 1}', '{"a":' * 100_000,
     '{"fx": 1, "fy": 1, "cx": 1, "cy": 1, "translation": 3}'],
)  # fmt: skip
def test_camera_files_that_are_none_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "camera").write_text(text)
    with pytest.raises(ValueError, match="camera") as error:
        read_camera(str(tmp_path / "camera"))
    assert "\n" not in str(error.value)
