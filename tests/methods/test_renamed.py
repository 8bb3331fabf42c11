"""Configurations of earlier versions: their checkpoints and exports still load, with the same meaning."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from monolift.errors import InputError
from monolift.files.settings import changed
from monolift.inference import checkpoint
from monolift.methods import METHODS, get_method
from monolift.methods.base import Renamed
from monolift.methods.smoke import Smoke, SmokeConfig, official, paper
from monolift.methods.smoke.config import Extensions, Quirks
from monolift.runtime.smoke import settings

EARLIER: dict[str, Any] = {
    "pixels": "rgb",
    "full_camera": True,
    "orientation": "vector",
    "radius": "centernet",
    "keep_outside": True,
    "ignore_unlabelled": True,
    "regression": "disentangled",
    "height_leak": False,
    "regression_per_object": True,
    "suppress": 0.5,
    "head_norm": "group",
    "depth": "linear",
    "depth_calibration": [0.0, 0.0, 0.0],
    "heading_bins": 12,
    "ray_terms": False,
    "height_depth": False,
    "dense_depth": 0.0,
}
PUBLISHED = {"radius": "corrected", "keep_outside": False, "ignore_unlabelled": False, "suppress": 0.0}
RELEASED = {
    **PUBLISHED,
    "pixels": "bgr",
    "full_camera": False,
    "height_leak": True,
    "regression_per_object": False,
}


def earlier(config: SmokeConfig, changes: dict[str, Any]) -> dict[str, Any]:
    """The fields of a configuration as an earlier version wrote them."""
    plain = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("quirks", "extensions", "nms")}
    return {**plain, **EARLIER, **changes}


def trained_on_all(config: SmokeConfig) -> SmokeConfig:
    """The earlier versions let rescaled samples train everything, in every preset."""
    return dataclasses.replace(config, quirks=dataclasses.replace(config.quirks, rescaled_heatmap_only=False))


@pytest.mark.parametrize("config, changes", [
    (SmokeConfig(), {}),
    (trained_on_all(paper()), PUBLISHED),
    (trained_on_all(official()), RELEASED),
    (SmokeConfig(quirks=Quirks(quaternion=True)), {"orientation": "quaternion"}),
    (SmokeConfig(quirks=Quirks(regression="l1"), nms=0.3), {"regression": "l1", "suppress": 0.3}),
])  # fmt: skip
def test_a_smoke_checkpoint_of_an_earlier_version_loads(
    tmp_path: Path, config: SmokeConfig, changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(config, backbone="nano", head_channels=32)
    model = Smoke(config)
    folder = checkpoint.save(tmp_path / "model", model)
    assert checkpoint.load(folder).config == config
    content = json.loads((folder / "config.json").read_text())
    content["config"] = earlier(config, changes)
    (folder / "config.json").write_text(json.dumps(content))
    again = checkpoint.load(folder)
    assert again.config == config
    there = again.state_dict()
    assert all(torch.equal(v, there[k]) for k, v in model.state_dict().items())
    # and the runtime reads both alike
    now = dataclasses.asdict(config)
    nms, quirks = settings(content["config"])
    assert nms == settings(now)[0]
    assert {name: settings(now)[1][name] for name in quirks} == quirks


@pytest.mark.parametrize("name, value, words", [
    ("pixels", "hsv", "pixels must be one of rgb, bgr"),
    ("full_camera", 1, "full_camera must be one of True, False"),
    ("radius", ["corrected"], "radius must be one of"),
    ("suppress", "much", "nms"),
    ("regression", "l3", "regression must be one of"),
])  # fmt: skip
def test_values_that_never_were_are_named(tmp_path: Path, name: str, value: Any, words: str) -> None:
    folder = checkpoint.save(tmp_path / "model", Smoke(SmokeConfig(head_channels=32)))
    content = json.loads((folder / "config.json").read_text())
    content["config"] = earlier(SmokeConfig(head_channels=32), {name: value})
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=words) as caught:
        checkpoint.load(folder)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("name", METHODS)
def test_every_table_leads_to_fields_that_are_there(name: str) -> None:
    method = get_method(name)
    for old, new in method.renamed.items():
        assert isinstance(new, Renamed)
        assert old not in {f.name for f in dataclasses.fields(method.config)}
        for present in (new, *new.also):
            place: Any = method.config()
            for part in present.name.split("."):
                place = getattr(place, part)


def test_present_names_take_precedence() -> None:
    method = get_method("smoke")
    given = {"suppress": 0.2, "nms": 0.4, "full_camera": False, "quirks": {"bgr": True}}
    found = method.up_to_date(given)
    assert found == {"nms": 0.4, "quirks": {"intrinsics_only": True, "bgr": True}}
    assert given["quirks"] == {"bgr": True}


def test_ss3d_settings_of_an_earlier_version_load() -> None:
    method = get_method("ss3d")
    assert method.up_to_date({"hints_weight": 0.005, "beta": 0.5}) == {
        "likelihood_weight": 0.005,
        "beta": 0.5,
    }


@pytest.mark.parametrize("extensions, changes", [
    (
        Extensions(log_depth=True, head_norm="batch", ray_terms=True, height_depth=True, dense_depth=0.5),
        {"depth": "log", "head_norm": "batch", "ray_terms": True, "height_depth": True, "dense_depth": 0.5},
    ),
    (
        Extensions(binned_heading=True, heading_bins=8, depth_calibration=(0.1, 0.0, 0.2)),
        {"orientation": "bins", "heading_bins": 8, "depth_calibration": [0.1, 0.0, 0.2]},
    ),
])  # fmt: skip
def test_smoke_options_that_were_not_yet_extensions_load(
    extensions: Extensions, changes: dict[str, Any]
) -> None:
    config = SmokeConfig(extensions=extensions)
    found = changed(SmokeConfig(), get_method("smoke").up_to_date(earlier(config, changes)))
    assert found == config
