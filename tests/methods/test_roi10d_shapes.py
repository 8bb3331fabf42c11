"""Shapes in ROI-10D: labels by greedy search against depth and mask, their file, and meshes of detections."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from monolift.augment.augment import mirror
from monolift.data.sample import Sample
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera
from monolift.geometry.rotations import matrix_from_yaw
from monolift.methods.roi10d import ROI10D, ROI10DConfig
from monolift.methods.roi10d.decode import LiftedDetections
from monolift.methods.roi10d.meshes import with_meshes
from monolift.methods.roi10d.shape_labels import (
    ShapeLabels,
    cost,
    gather_evidence,
    search,
    write_shape_labels,
)
from monolift.render.renderer import render
from monolift.shapes.autoencoder import ShapeSpace, load_shape_space
from monolift.shapes.projective_texture import placed
from toy_kitti import toy_camera

CENTER, SIZE, YAW = (1.5, 0.9, 11.0), (4.2, 1.5, 1.7), 0.7


@pytest.fixture(scope="module")
def space() -> ShapeSpace:
    return load_shape_space()


def scene(space: ShapeSpace, code: torch.Tensor) -> Sample:
    """A car of this code, with its depth and its mask, in half of KITTI's image."""
    camera = toy_camera(621, 188)
    boxes = Boxes3D(torch.tensor([CENTER]), torch.tensor([SIZE]), torch.tensor([YAW]))
    mesh = placed(space.mesh(code, boxes.size[0]), boxes.center[0], boxes.yaw[0])
    seen = render(mesh, Camera.stack([camera]))
    return Sample(
        name="000001",
        image=torch.full((3, 188, 621), 90, dtype=torch.uint8),
        camera=camera,
        boxes=boxes,
        classes=("Car",),
        boxes2d=boxes.projected(camera),
        truncation=torch.zeros(1),
        occlusion=torch.zeros(1, dtype=torch.long),
        depth=seen.depth[0],
        instances=(seen.face[0] >= 0).long(),
    )


def test_search_finds_the_shape_that_was_rendered(space: ShapeSpace) -> None:
    """A shape off the medians: what is found explains depth and mask better than every median it started from."""
    medians = torch.stack(list(space.medians.values()))
    code = torch.nn.functional.normalize(medians[0] + 0.35 * torch.randn(6), dim=0)
    evidence = gather_evidence(scene(space, code), 0)
    assert len(evidence.points) > 300
    assert bool(evidence.mask.any()) and not bool(evidence.mask.all())
    found, value = search(space, evidence, steps=8, tries=3)
    started = float(cost(space, medians, evidence).min())
    truth = float(cost(space, code[None], evidence))
    assert value == pytest.approx(float(cost(space, found[None], evidence)), abs=1e-5)
    assert truth < started
    assert value - truth < 0.5 * (started - truth)
    filled = space.decode(torch.stack([code, found, medians[0]]))[:, 0] < 0
    overlap = [float((filled[0] & other).sum() / (filled[0] | other).sum()) for other in filled[1:]]
    assert overlap[0] > overlap[1]


def test_evidence_lies_on_the_surface_and_in_the_box(space: ShapeSpace) -> None:
    sample = scene(space, space.medians["Car"])
    evidence = gather_evidence(sample, 0)
    assert float(evidence.points.abs().max()) <= 1.05
    # by hand: the pixel in the middle of the mask
    v, u = (int(i) for i in torch.nonzero(sample.instances)[len(torch.nonzero(sample.instances)) // 2])
    point = sample.camera.cam_from_px(torch.tensor([[float(u), float(v)]]), sample.depth[v, u][None])
    own = (point - torch.tensor(CENTER)) @ matrix_from_yaw(torch.tensor(YAW)) / (torch.tensor(SIZE) / 2)
    assert float((evidence.points - own).norm(dim=1).min()) < 1e-4
    other = torch.nn.functional.normalize(space.medians["Car"] + 0.5 * torch.randn(6), dim=0)
    on, off = cost(space, torch.stack([space.medians["Car"], other]), evidence).tolist()
    assert on < off


def test_nothing_known_is_no_label(space: ShapeSpace, tmp_path: Path) -> None:
    bare = dataclasses.replace(scene(space, space.medians["Car"]), depth=None, instances=None)
    assert not gather_evidence(bare, 0).enough
    assert write_shape_labels([bare], space, tmp_path / "labels.json") == 0
    assert ShapeLabels(str(tmp_path / "labels.json")).codes(bare).tolist() == [[0.0] * 6]


def test_labels_are_found_again_in_mirrored_and_thinned_samples(space: ShapeSpace, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    sample = scene(space, space.medians["SUV"])
    assert write_shape_labels([sample], space, path, search_steps=2) == 1
    labels = ShapeLabels(str(path))
    codes = labels.codes(sample)
    assert float(codes.norm()) == pytest.approx(1.0, abs=1e-3)
    torch.testing.assert_close(labels.codes(mirror(sample)), codes)
    assert labels.codes(sample.keep(torch.zeros(1, dtype=torch.bool))).shape == (0, 6)
    entry = json.loads(path.read_text())["shape_labels"]["000001"][0]
    assert entry["center"] == pytest.approx(CENTER)
    path.write_text("{}")
    with pytest.raises(InputError, match="not a file of shape labels"):
        ShapeLabels(str(path)).codes(sample)
    assert ShapeLabels("").codes(sample).tolist() == [[0.0] * 6]


def test_meshes_stand_in_their_boxes_and_wear_the_image(space: ShapeSpace) -> None:
    sample = scene(space, space.medians["Car"])
    red = sample.image.clone()
    red[:, sample.instances == 1] = torch.tensor([200, 30, 30], dtype=torch.uint8)[:, None]
    boxes = Boxes3D.cat(
        [sample.boxes, Boxes3D(torch.tensor([[-90.0, 1, 20]]), torch.tensor([SIZE]), torch.tensor([0.0]))]
    )
    found = LiftedDetections(
        boxes=boxes,
        scores=torch.tensor([0.9, 0.8]),
        labels=torch.zeros(2, dtype=torch.long),
        boxes2d=boxes.projected(sample.camera, clip=False),
        rotation=matrix_from_yaw(boxes.yaw),
        shape=space.medians["Car"].expand(2, 6),
        score2d=torch.ones(2),
    )
    shaped = with_meshes(found, red, sample.camera, space)
    assert shaped.meshes is not None
    for mesh, box in zip(shaped.meshes, (boxes[0], boxes[1]), strict=True):
        own = (mesh.vertices - box.center) @ matrix_from_yaw(box.yaw[0])
        torch.testing.assert_close(own.amax(0) - own.amin(0), torch.tensor(SIZE), atol=1e-3, rtol=0)
    seen = render(shaped.meshes[0], Camera.stack([sample.camera]))
    middle = seen.colour[0][:, seen.silhouette[0] > 0.99].mean(1) * 255
    assert float(middle[0]) > 150 > 80 > float(middle[1])
    assert shaped.meshes[1].texture is None  # it is not in the image
    detector = ROI10D(ROI10DConfig(input_width=160, input_height=64, head_channels=32))
    unlearnt = dataclasses.replace(found, shape=torch.eye(6)[:2])  # no shape label was ever seen
    assert torch.equal(detector.with_meshes(unlearnt, red, sample.camera).shape[1], space.medians["all"])
    assert len(with_meshes(found[:0], red, sample.camera, space)) == 0
