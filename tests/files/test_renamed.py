"""Names of version 0.1.0 go on working for one version, with a warning that names the new one."""

from __future__ import annotations

import importlib

import pytest

from monolift.files.renamed import renamed_parameters

OLD_NAMES = [
    ("monolift.data.sources", "Photograph", "InputImage"),
    ("monolift.data.sources", "photograph", "input_image"),
    ("monolift.data.sources", "read_photograph", "read_input_image"),
    ("monolift.autolabel.observe", "Photo", "CalibratedImage"),
    ("monolift.autolabel.observe", "read_photo", "read_calibrated"),
    ("monolift.export", "Picture", "CameraImage"),
    ("monolift.viewer.scene", "Picture", "ImageSource"),
    ("monolift.render.raster", "Picture", "RasterImage"),
    ("monolift.render.draw.overlay", "picture", "draw_result"),
    ("monolift.world.gallery", "car_picture", "car_image"),
]


@pytest.mark.parametrize(("module", "old", "new"), OLD_NAMES)
def test_an_old_name_warns_and_is_the_new_one(module: str, old: str, new: str) -> None:
    home = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=f"{old} is now called {new}"):
        found = getattr(home, old)
    assert found is getattr(home, new)


def test_a_name_that_never_was_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Painting'"):
        _ = importlib.import_module("monolift.data.sources").Painting


def test_an_old_keyword_warns_and_is_passed_on() -> None:
    @renamed_parameters(pictures="images")
    def count(images: list[int]) -> int:
        return len(images)

    assert count([1, 2]) == 2
    with pytest.warns(DeprecationWarning, match="pictures"):
        assert count(pictures=[1, 2, 3]) == 3  # type: ignore[call-arg]
