"""The contract of methods/base.py, kept by every method and preset, and by a method that is registered from outside."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from guide_method import heights
from monolift.augment.augment import mirror
from monolift.data.kitti import KittiDataset
from monolift.data.sample import Detections, Sample
from monolift.errors import InputError
from monolift.files.settings import changed
from monolift.geometry import Camera
from monolift.inference import checkpoint
from monolift.methods import METHODS, get_method, method_names, method_of, register
from monolift.methods.base import Detector, DetectorConfig, Method, Targets, in_source
from monolift.methods.recipe import Recipe
from toy_kitti import write_toy

heights()
PRESETS = [(name, preset) for name in method_names() for preset in get_method(name).presets]
WIDTH, HEIGHT = 160, 64
SMALL = {"input_width": WIDTH, "input_height": HEIGHT, "head_channels": 32, "warmup_steps": 1}
every_preset = pytest.mark.parametrize("name, preset", PRESETS)
every_method = pytest.mark.parametrize("name", method_names())


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Two cars before one camera, two before another, mirrored, and nothing."""
    kitti = KittiDataset(write_toy(tmp_path_factory.mktemp("toy"), ["000000"], cars=2))
    other = KittiDataset(
        write_toy(tmp_path_factory.mktemp("toy"), ["000001"], cars=2, size=(800, 450), seed=1)
    )
    return [kitti[0], mirror(other[0]), empty(kitti[0])]


def empty(sample: Sample) -> Sample:
    return sample.keep(torch.zeros(len(sample), dtype=torch.bool))


@cache
def small(name: str, preset: str) -> Any:
    """A preset's configuration, with a small network and image, for cars alone."""
    method = get_method(name)
    config = method.presets[preset]()
    kept = {f.name: f for f in dataclasses.fields(config)}
    changes: dict[str, Any] = {key: value for key, value in SMALL.items() if key in kept}
    if "backbone" in kept:
        changes["backbone"] = method.presets["default"]().backbone  # type: ignore[attr-defined]
    changes |= {"classes": ("Car",), **dict.fromkeys(kept["classes"].metadata.get("decides", ()), ())}
    return dataclasses.replace(config, **changes)


@cache
def detector_of(name: str, preset: str) -> Detector[Any, Any]:
    torch.manual_seed(0)
    return get_method(name).detector(small(name, preset))


def views(detector: Detector[Any, Any], samples: Sequence[Sample]) -> list[Sample]:
    return [detector.training_view(*sample.size).sample(sample) for sample in samples]


def images(detector: Detector[Any, Any], samples: Sequence[Sample]) -> torch.Tensor:
    return torch.stack([detector.normalise(sample.image) for sample in samples])


# -- the method -------------------------------------------------------------------------------------------------------


@every_method
def test_a_method_is_complete(name: str) -> None:
    method = get_method(name)
    assert isinstance(method, Method)
    assert method.name == name and method.title
    assert {"default", "paper"} <= set(method.presets) == set(method.recipes)
    assert method.fixed <= set(method.presets)
    assert all(isinstance(recipe, Recipe) for recipe in method.recipes.values())


@every_preset
def test_its_configuration_is_a_frozen_dataclass_that_json_can_hold(name: str, preset: str) -> None:
    method = get_method(name)
    config = method.presets[preset]()
    assert isinstance(config, method.config) and isinstance(config, DetectorConfig)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.fit = "area"  # type: ignore[misc]
    held = json.loads(json.dumps(dataclasses.asdict(config)))
    assert changed(method.config(), method.up_to_date(held)) == config
    assert method_of(config) is method


def test_a_configuration_of_no_method_is_named() -> None:
    with pytest.raises(InputError, match=r"config: expected one of SmokeConfig.*, got Recipe"):
        method_of(Recipe())


@every_method
def test_every_field_of_its_configuration_has_a_docstring(name: str) -> None:
    source = Path(inspect.getfile(get_method(name).config)).read_text()
    (body,) = (
        node.body
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) and node.name == get_method(name).config.__name__
    )
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.AnnAssign):
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            assert said, f"{name}: {ast.unparse(node.target)}"


@every_preset
def test_statistics_measure_what_the_user_has_not_set(name: str, preset: str, samples: list[Sample]) -> None:
    method, config = get_method(name), small(name, preset)
    measured = method.statistics(config, samples, ())
    assert type(measured) is type(config)
    changed = {
        f.name for f in dataclasses.fields(config) if getattr(measured, f.name) != getattr(config, f.name)
    }
    assert method.statistics(config, samples, changed) == config
    for field in changed:
        kept = method.statistics(config, samples, {field})
        assert getattr(kept, field) == getattr(config, field)
    if changed:
        with pytest.raises(InputError, match="no training object of class Car"):
            method.statistics(config, [samples[2]], ())


# -- the detector -----------------------------------------------------------------------------------------------------


@every_preset
def test_images_become_network_images(name: str, preset: str, samples: list[Sample]) -> None:
    detector = detector_of(name, preset)
    assert detector.method == name
    assert detector.classes == ("Car",)
    assert detector.device == torch.device("cpu")
    for sample in samples:
        view = detector.training_view(*sample.size)
        assert (view.width, view.height) == (WIDTH, HEIGHT)
        prepared = detector.prepare(sample.image, sample.camera)
        assert prepared.image.dtype == torch.float32
        assert prepared.image.shape == (3, prepared.view.height, prepared.view.width)
        assert (prepared.camera.width, prepared.camera.height) == (prepared.view.width, prepared.view.height)
        assert prepared.view.width % 32 == prepared.view.height % 32 == 0
    pair = torch.stack([views(detector, samples)[k].image for k in (0, 1)])
    together = detector.normalise(pair)
    assert torch.equal(together, torch.stack([detector.normalise(image) for image in pair]))


@every_preset
def test_the_network_gives_named_maps(name: str, preset: str, samples: list[Sample]) -> None:
    detector = detector_of(name, preset).eval()
    assert detector.backbone is detector.network.backbone
    assert isinstance(detector.backbone, nn.Module) and list(detector.backbone.named_children())
    with torch.no_grad():
        raw = detector(images(detector, views(detector, samples)))
    assert raw and all(isinstance(key, str) for key in raw)
    assert all(value.dtype == torch.float32 and len(value) == len(samples) for value in raw.values())


@every_preset
def test_targets_are_the_same_from_a_loaders_process(name: str, preset: str, samples: list[Sample]) -> None:
    detector = detector_of(name, preset)
    seen = views(detector, samples)
    here = detector.encode(seen)
    loader: Any = DataLoader(seen, batch_size=3, num_workers=1, collate_fn=detector.encode)  # type: ignore[arg-type]
    (there,) = loader
    assert isinstance(there, Targets)
    assert there.names == here.names == tuple(sample.name for sample in samples)
    assert there.label.tolist() == [0] * len(there.label) and len(there.label) > 0
    flat_here, flat_there = leaves(here), leaves(there)
    assert flat_here.keys() == flat_there.keys()
    assert all(torch.equal(value, flat_there[key]) for key, value in flat_here.items())
    assert leaves(there.to("cpu")).keys() == flat_here.keys()


def leaves(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of nested dataclasses."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    if dataclasses.is_dataclass(value):
        parts = (leaves(getattr(value, f.name), f"{name}.{f.name}") for f in dataclasses.fields(value))
        return {key: tensor for part in parts for key, tensor in part.items()}
    return {}


@every_preset
@pytest.mark.parametrize("which", [(0, 1), (0, 2), (2, 2)], ids=["objects", "some", "none"])
def test_the_loss_has_a_gradient_whatever_is_in_the_images(
    name: str, preset: str, which: tuple[int, ...], samples: list[Sample]
) -> None:
    detector = detector_of(name, preset).train()
    seen = views(detector, [samples[k] for k in which])
    detector.zero_grad()
    losses = detector.loss(detector(images(detector, seen)), detector.encode(seen))
    assert "total" in losses
    assert all(value.shape == () and bool(torch.isfinite(value)) for value in losses.values())
    losses["total"].backward()
    gradients = [p.grad for p in detector.parameters() if p.grad is not None]
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert any(float(gradient.abs().max()) > 0 for gradient in gradients)


@every_preset
def test_detections_of_a_batch_are_those_of_its_images(name: str, preset: str, samples: list[Sample]) -> None:
    detector = detector_of(name, preset).eval()
    seen = views(detector, samples)
    cameras = Camera.stack([sample.camera for sample in seen])
    with torch.no_grad():
        raw = detector(images(detector, seen))
        found = detector.decode(raw, cameras)
    assert len(found) == len(samples)
    for b, one in enumerate(found):
        assert isinstance(one, Detections)
        assert one.names == detector.classes
        assert one.scores is not None and one.labels is not None and one.boxes2d is not None
        assert bool((one.scores.diff() <= 0).all()) and bool(((one.scores >= 0) & (one.scores <= 1)).all())
        assert bool((one.labels == 0).all())
        for tensor in leaves(one.boxes).values():
            assert tensor.dtype == torch.float32 and bool(torch.isfinite(tensor).all())
        width, height = samples[b].size
        cut = in_source(one, detector.training_view(width, height), width, height).boxes2d
        assert cut is not None
        limit = torch.tensor([width - 1, height - 1] * 2)
        assert bool(((cut >= 0) & (cut <= limit)).all())
        alone = detector.decode({k: v[b : b + 1] for k, v in raw.items()}, cameras[b : b + 1])[0]
        assert len(alone) == len(one)
        torch.testing.assert_close(alone.boxes.center, one.boxes.center, atol=1e-3, rtol=1e-3)
        with_meshes = detector.with_meshes(one[:2], seen[b].image, seen[b].camera)
        assert len(with_meshes) == len(one[:2])


@every_preset
def test_checkpoints_come_back(name: str, preset: str, samples: list[Sample], tmp_path: Path) -> None:
    detector = detector_of(name, preset).eval()
    again = checkpoint.load(checkpoint.save(tmp_path / "model", detector))
    assert type(again) is type(detector)
    assert again.config == detector.config
    state = detector.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    image = images(detector, views(detector, samples[:1]))
    with torch.no_grad():
        first, second = detector(image), again(image)
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_a_detector_that_lacks_a_part_cannot_be_made() -> None:
    class Half(Detector[Any, Any]):
        method = "half"

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


# -- methods from outside ---------------------------------------------------------------------------------------------


def test_a_registered_method_is_found_by_name_and_by_its_configuration() -> None:
    module = heights()
    assert "heights" in method_names() and "heights" not in METHODS
    assert get_method("heights") is module.METHOD
    assert register(module.METHOD) is module.METHOD  # once more changes nothing
    assert method_of(module.HeightsConfig()) is module.METHOD
    with pytest.raises(InputError, match="'smoke' already exists: SMOKE"):
        register(dataclasses.replace(module.METHOD, name="smoke"))


def test_a_method_of_an_installed_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[monolift.methods]\nelsewhere = elsewhere:METHOD\n")
    (tmp_path / "elsewhere.py").write_text(
        "import dataclasses, heights\nMETHOD = dataclasses.replace(heights.METHOD, name='elsewhere')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("monolift.methods._registered", {})
    assert "elsewhere" in method_names()
    assert get_method("elsewhere").title == heights().METHOD.title
    monkeypatch.delitem(sys.modules, "elsewhere")


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(InputError, match=r"method must be one of smoke, ss3d, roi10d.*, got 'smoko'"):
        get_method("smoko")
