"""ROI-10D whole: network, losses, corner cases, training by the command line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from monolift.data.kitti import KittiDataset
from monolift.data.sample import Sample
from monolift.inference import checkpoint
from monolift.methods.roi10d import ROI10D, LiftedDetections, ROI10DConfig
from monolift.methods.roi10d.config import TERMS
from monolift.methods.roi10d.loss import separate_terms
from monolift.training.train import Step
from monolift.training.validate import detect_sample
from toy_kitti import toy_camera, write_toy
from trained import train_with

WIDTH, HEIGHT = 160, 64
SMALL = ROI10DConfig(input_width=WIDTH, input_height=HEIGHT, head_channels=32, warmup_steps=1)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> KittiDataset:
    return KittiDataset(write_toy(tmp_path_factory.mktemp("toy"), ["000000", "000001", "000002"], cars=2))


def views(detector: ROI10D, samples: list[Sample]) -> tuple[list[Sample], torch.Tensor]:
    seen = [detector.training_view(*s.size).sample(s) for s in samples]
    return seen, torch.stack([detector.normalise(s.image) for s in seen])


def empty(sample: Sample) -> Sample:
    return sample.keep(torch.zeros(len(sample), dtype=torch.bool))


def make(**changes: object) -> ROI10D:
    torch.manual_seed(0)
    values = {f: getattr(SMALL, f) for f in ("input_width", "input_height", "head_channels", "warmup_steps")}
    return ROI10D(ROI10DConfig(**{**values, **changes}))  # type: ignore[arg-type]


@pytest.mark.parametrize("objects", [True, False])
def test_every_weight_has_a_gradient_whatever_is_in_the_image(toy: KittiDataset, objects: bool) -> None:
    """Or a parallel training would wait for it. In the warm-up and after."""
    detector = make().train()
    samples, images = views(detector, [s if objects else empty(s) for s in (toy[0], toy[1])])
    for wanted in (set(TERMS), {"pose"}):
        detector.zero_grad()
        losses = detector.loss(detector(images), detector.encode(samples))
        losses["total"].backward()
        detector.after_step()
        assert wanted <= set(losses)
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in detector.parameters())
        moved = detector.network.branches["rotation"][0].weight.grad
        assert (float(moved.abs().max()) > 0) == objects
    assert int(detector.steps) == 2


def test_kendalls_weights_move_and_nobody_elses(toy: KittiDataset) -> None:
    for weighting in ("kendall", "none"):
        detector = make(weighting=weighting).train()
        samples, images = views(detector, [toy[0]])
        detector.loss(detector(images), detector.encode(samples))["total"].backward()
        grad = detector.log_variances.grad
        assert grad is not None
        assert (float(grad.abs().max()) > 0) == (weighting == "kendall")


@pytest.mark.parametrize("lift_extents", [True, False])
def test_extents_are_trained_by_eq_2_or_by_their_own_term(toy: KittiDataset, lift_extents: bool) -> None:
    detector = make(lift_extents=lift_extents, warmup_steps=0).train()
    samples, images = views(detector, [toy[0]])
    losses = detector.loss(detector(images), detector.encode(samples))
    assert ("extents" in losses) != lift_extents
    losses["pose"].backward()
    grad = detector.network.branches["extents"][-1].weight.grad
    assert (grad is not None and float(grad.abs().max()) > 0) == lift_extents


def test_separate_terms_do_not_care_for_a_quaternions_sign() -> None:
    wanted = {
        "rotation": torch.nn.functional.normalize(torch.randn(3, 4), dim=1), "centroid": torch.randn(3, 2),
        "depth": torch.randn(3, 1), "extents": torch.randn(3, 3),
    }  # fmt: skip
    other = {**wanted, "rotation": -2 * wanted["rotation"]}
    for value in separate_terms(other, wanted, (1.0, 1.0, 1.0, 1.0)).values():
        torch.testing.assert_close(value, torch.zeros(3), atol=1e-6, rtol=0)


def test_nothing_found_is_no_detection_and_no_failure() -> None:
    detector = make(score=0.999).eval()
    sample = Sample("black", torch.zeros(3, 90, 200, dtype=torch.uint8), toy_camera(200, 90))
    found = detect_sample(detector, sample)
    assert len(found) == 0
    assert isinstance(found, LiftedDetections)
    assert found.rotation.shape == (0, 3, 3)
    assert found.shape.shape == (0, 6)


def test_regions_of_any_size_give_finite_numbers() -> None:
    """One pixel wide, empty, larger than the image, on all levels of a larger network."""
    rois = torch.tensor([[5.0, 5, 6, 40], [9, 9, 9, 9], [-50, -50, 900, 400], [0, 0, 159, 63]])
    image = torch.tensor([0, 1, 1, 0])
    for detector in (make().eval(), make(backbone="resnet18", roi_levels=3, channels=32).eval()):
        with torch.no_grad():
            raw = detector(torch.randn(2, 3, HEIGHT, WIDTH))
            numbers = detector.network.regions(raw, rois, image)
            none = detector.network.regions(raw, rois[:0], image[:0])
        assert all(bool(torch.isfinite(v).all()) for v in numbers.values())
        assert {k: v.shape[1] for k, v in numbers.items()} == {k: v.shape[1] for k, v in none.items()}
        assert all(len(v) == 0 for v in none.values())


def test_regions_are_read_from_the_level_of_their_size() -> None:
    network = make(backbone="resnet18", roi_levels=3, channels=32).network
    sides = torch.tensor([20.0, 220, 228, 440, 460, 2000])
    boxes = torch.cat([torch.zeros(6, 2), sides[:, None].expand(6, 2)], 1)
    assert network.level(boxes).tolist() == [0, 0, 1, 1, 2, 2]


def test_given_depth_takes_the_streams_place_in_its_units(toy: KittiDataset) -> None:
    """Metres of the image's own lens become metres at the reference focal length; holes may stay."""
    detector = make(depth="given", focal=200.0).eval()
    sample, images = views(detector, [toy[0]])
    camera = detector.encode(sample).cameras
    depth = torch.full((1, HEIGHT, WIDTH), 10.0)
    depth[0, :, :20] = 0
    raw = detector.with_depth(detector(images), depth, camera)
    lens = 200.0 / float(camera.fx[0])
    torch.testing.assert_close(raw["depth"][0, 0, :, 20:], torch.full((HEIGHT, WIDTH - 20), 10.0 * lens))
    roi, image = torch.tensor([[40.0, 20, 90, 50]]), torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        here = detector.network.regions(raw, roi, image)["depth"]
        deeper = detector.with_depth(
            raw, torch.where(depth > 0, depth * torch.linspace(1, 3, WIDTH), 0), camera
        )
        there = detector.network.regions(deeper, roi, image)["depth"]
        without = detector.network.regions(detector(images), roi, image)["depth"]  # nobody gave any
    assert float((here - there).abs()) > 1e-6
    assert bool(torch.isfinite(without).all())


def test_without_depth_there_is_no_stream_and_no_modality() -> None:
    with_depth, without = make(), make(depth="none")
    names = {name.split(".")[1] for name, _ in without.named_parameters() if name.startswith("network.")}
    assert "depth" not in names
    assert without.network.fusion.depth is None
    assert with_depth.network.fusion.out_channels - without.network.fusion.out_channels == 16


def test_depth_maps_train_the_stream(toy: KittiDataset) -> None:
    detector = make().train()
    samples, images = views(detector, [toy[0]])
    known = [dataclasses.replace(s, depth=torch.full((HEIGHT, WIDTH), 12.0)) for s in samples]
    losses = detector.loss(detector(images), detector.encode(known))
    assert float(losses["depth_map"].detach()) > 0.1
    assert "depth_map" not in detector.loss(detector(images), detector.encode(samples))


class KilledError(Exception):
    """Stands for a kill."""


def test_training_resuming_and_detecting(tmp_path: Path) -> None:
    """On files, through the training loop: killed in the middle and resumed it ends with the weights of one that was not."""
    root = write_toy(tmp_path, [f"{k:06d}" for k in range(6)], cars=2)
    (root / "train.txt").write_text("000000\n000001\n000002\n000003\n")
    (root / "val.txt").write_text("000004\n000005\n")
    settings = ("input_width=160", "input_height=64", "head_channels=32", "warmup_steps=2", "batch_size=2")

    def run(out: str, resume: bool = False, on_step: Callable[[Step], None] | None = None) -> Path:
        return train_with(
            "roi10d", root, root / out, (*settings, "epochs=2"), split=root / "train.txt",
            val_split=root / "val.txt", val_every=2, save_minutes=0.0, resume=resume, on_step=on_step,
        )  # fmt: skip

    best = run("whole")
    rows = [json.loads(line) for line in (root / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert "extents" in rows[0]
    assert "pose" in rows[1]  # the warm-up is over
    assert rows[1]["selection"] >= 0
    detector = checkpoint.load(best)
    assert isinstance(detector, ROI10D)
    assert int(detector.steps) == 4
    assert isinstance(detect_sample(detector, KittiDataset(root)[5]), LiftedDetections)

    def killed(step: Step) -> None:
        if step.step == 3:
            raise KilledError

    with pytest.raises(KilledError):
        run("broken", on_step=killed)
    run("broken", resume=True)
    whole, again = (checkpoint.load(root / out / "last").state_dict() for out in ("whole", "broken"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
