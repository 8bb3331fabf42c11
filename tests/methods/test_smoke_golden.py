"""SMOKE's preset official against numbers that the released code and MMDetection3D gave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers.smoke_golden import (
    filled,
    golden,
    grid_camera,
    raw_maps,
    released_shapes,
    rng,
    scene,
    source_matrix,
)

from monolift.data.sample import Sample
from monolift.geometry import Camera
from monolift.methods.smoke import Smoke, official
from monolift.methods.smoke.assign import assign_targets
from monolift.methods.smoke.cells import STRIDE, columns_rows
from monolift.methods.smoke.codec import SmokeCodec
from monolift.methods.smoke.decode import decode_maps
from monolift.methods.smoke.loss import smoke_loss
from monolift.methods.smoke.released import mmdet3d, released

ODD = ("plain/800001", "flip/800001", "affine/800001")
"""Scenes with a corner behind the camera, whose rectangle is meaningless in the released code."""
BATCHES = ("made/two", "made/other", "made/flip", "made/affine")
CODEC = SmokeCodec(official())


@pytest.mark.slow
def test_the_network_gives_the_released_codes_maps() -> None:
    known = golden("network.npz")
    state = {name: filled(name, shape) for name, shape in released_shapes().items()}
    first = state["backbone.body.base.base_layer.0.weight"][0, 0, 0]
    np.testing.assert_allclose(first, known["weight_corner"][0], rtol=1e-6)
    found = released(state)
    assert found is not None
    detector = Smoke(found.config)
    detector.load_state_dict(dict(found.state))
    image = torch.from_numpy(rng("input").standard_normal((1, 3, 128, 256)))
    np.testing.assert_allclose(image[0, :, :2, :4], known["input_corner"], rtol=1e-6)
    detector = detector.double().eval()
    with torch.no_grad():
        features = detector.network.backbone(image)
        heat, regression = detector.network.heatmap(features), detector.network.regression[0](features)
    np.testing.assert_allclose(features[:, ::4, ::2, ::2], known["features"], atol=2.5e-6)
    np.testing.assert_allclose(heat, known["class_logits"], atol=2.5e-6)
    np.testing.assert_allclose(regression, known["regression_raw"], atol=2.5e-6)


@pytest.mark.parametrize("variant", ["plain", "flip", "affine", "flipaffine"])
@pytest.mark.parametrize("frame", ["800001", "800002", "800003", "800004"])
def test_targets_are_the_released_codes(variant: str, frame: str) -> None:
    check_targets(golden("targets.npz"), scene(golden("targets.npz"), variant, frame), variant)


def check_targets(values: dict, sample: Sample, variant: str) -> None:
    key = f"{variant}/{sample.name}"
    drawn = replace(sample, rescaled=False)  # to see the boxes that a rescaled sample does not train
    targets = assign_targets(CODEC, [drawn])
    kept = values[f"{key}/dimensions"].sum(1) > 0
    np.testing.assert_array_equal(columns_rows(targets.cell, 320), values[f"{key}/proj_p"][kept])
    np.testing.assert_array_equal(targets.label, values[f"{key}/cls_ids"][kept])
    off = np.abs(targets.heatmap[0].numpy() - values[f"{key}/hm"]) > 2e-7
    assert off.mean() <= (0.02 if key in ODD else 0)
    corners = np.sort(targets.boxes.corners().numpy(), 1)
    np.testing.assert_allclose(corners, np.sort(values[f"{key}/reg"][kept].transpose(0, 2, 1), 1), atol=2e-5)
    trained = assign_targets(CODEC, [sample])
    assert len(trained.boxes) == values[f"{key}/reg_mask"].sum()
    assert torch.equal(trained.heatmap, targets.heatmap)


@pytest.mark.parametrize("batch", BATCHES)
def test_losses_and_gradients_are_the_released_codes(batch: str) -> None:
    known = golden("losses.json")[batch]
    names = [name.split("/") for name in known["samples"]]
    targets = assign_targets(CODEC, [scene(golden("targets.npz"), *name) for name in names])
    raw = {name: maps.requires_grad_() for name, maps in raw_maps([frame for _, frame in names]).items()}
    losses = smoke_loss(CODEC, raw, targets)
    for ours, theirs in (("orientation", "ori"), ("size", "dim"), ("location", "loc")):
        assert losses[ours].item() == pytest.approx(known[theirs], rel=5e-6)
    odd = any(name in ODD for name in known["samples"])
    assert losses["heatmap"].item() == pytest.approx(known["hm"], rel=5e-5 if odd else 2e-6)
    losses["total"].backward()
    objects = golden("loss_gradients.npz")[f"{batch}/objects"]
    image, row, column = objects[:, [0, 2, 3]].T.astype(int)
    for maps, wanted in (("regression", objects[:, 4:12]), ("heatmap", objects[:, 12:15])):
        gradient = raw[maps].grad
        assert gradient is not None
        found = gradient[image, :, row, column].numpy()
        tolerance = 1e-3 if odd and maps == "heatmap" else 2e-5
        np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("frame", ["800001", "800002", "800003", "800004"])
def test_detections_are_the_released_codes(frame: str) -> None:
    values, known = golden("targets.npz"), golden("detections.npz")[f"made/{frame}"]
    found = decode_maps(CODEC, raw_maps([frame]), Camera.stack([grid_camera(values, f"test/{frame}")]))[0]
    found = found.filter(0.25)
    ahead = known[known[:, 11] > 0.5]  # ours drops what comes out behind the camera
    assert found.scores is not None and found.labels is not None and found.boxes2d is not None
    np.testing.assert_array_equal(found.labels, ahead[:, 0])
    np.testing.assert_allclose(found.scores, ahead[:, 13], atol=2e-7)
    np.testing.assert_allclose(found.boxes.size[:, [1, 2, 0]], ahead[:, 6:9], rtol=1e-6)
    np.testing.assert_allclose(found.boxes.bottom, ahead[:, 9:12], atol=5e-5)
    for ours, theirs in ((found.boxes.yaw, ahead[:, 12]), (found.boxes.alpha, ahead[:, 1])):
        turned = (ours.numpy() - theirs + np.pi) % (2 * np.pi) - np.pi
        np.testing.assert_allclose(turned, 0, atol=2e-5)
    whole = (found.boxes.corners()[..., 2] > 0.1).all(1).numpy()  # theirs projects what is behind the camera
    width, height = values[f"test/{frame}/size"].ravel()[:2]
    t = values[f"test/{frame}/trans_mat"].astype(float)
    cells = found.boxes2d.double().numpy().reshape(-1, 2, 2) / STRIDE
    source = ((cells - t[:2, 2]) / t[0, 0]).reshape(-1, 4).clip(0, [width, height] * 2)
    np.testing.assert_allclose(source[whole], ahead[whole, 2:6], atol=2e-3)


@pytest.mark.parametrize("camera", ["K", "P2"])
def test_boxes_and_losses_are_those_of_mmdetection3d(camera: str) -> None:
    """With P2 their depth is that of camera 2's plane, a few millimetres from the label's."""
    known, values = golden("mmdet3d.npz"), golden("targets.npz")
    frames = [name.split("/")[1] for name in golden("losses.json")["made/two"]["samples"]]
    config = replace(official(), top_k=100)
    cameras = [grid_camera(values, f"plain/{frame}") for frame in frames]
    if camera == "P2":
        config = replace(config, quirks=mmdet3d().quirks)
        moved = [Camera.from_matrix(source_matrix(frame)) for frame in frames]
        cameras = [replace(c, tx=m.tx, ty=m.ty, tz=m.tz) for c, m in zip(cameras, moved, strict=True)]
    codec, raw = SmokeCodec(config), raw_maps(frames)
    samples = [replace(scene(values, "plain", f), camera=c) for f, c in zip(frames, cameras, strict=True)]
    if camera == "K":  # their losses with P2 were taken at the cells of K
        losses = smoke_loss(codec, raw, assign_targets(codec, samples))
        for ours, theirs in (("orientation", "ori"), ("size", "dim"), ("location", "loc")):
            assert losses[ours].item() == pytest.approx(float(known[f"made/K/{theirs}"]), rel=5e-6)
    for b, found in enumerate(decode_maps(codec, raw, Camera.stack(cameras))):
        boxes = known[f"made/{camera}/boxes"][b]
        ahead = boxes[:, 2] > 0.5
        np.testing.assert_allclose(found.boxes.center, boxes[ahead, :3], atol=2e-5 if camera == "K" else 8e-3)
        np.testing.assert_allclose(found.boxes.size, boxes[ahead, 3:6], rtol=1e-5)
        np.testing.assert_allclose(found.scores, known[f"made/{camera}/scores"][b][ahead], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["plain", "flip", "affine", "flipaffine"])
def test_targets_of_kitti_are_the_released_codes(shared: Path, variant: str) -> None:
    folder = shared / "golden_smoke"
    labels = shared / "kitti/training/label_2"
    if not (folder / "targets_kitti.npz").is_file() or not labels.is_dir():
        pytest.skip("no golden values of KITTI")
    values = golden("targets_kitti.npz", folder)
    frames = sorted({key.split("/")[1] for key in values if key.startswith(variant)})
    known = [frame for frame in frames if (labels / f"{frame}.txt").is_file()]
    if not known:
        pytest.skip("none of the labels is there")
    for frame in known:
        check_targets(values, scene(values, variant, frame, labels), variant)
