"""Results in notebooks and other libraries."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.data.sample import Objects
from monolift.errors import MissingExtraError
from monolift.geometry import Boxes3D, Camera
from monolift.inference import conversions
from monolift.inference.results import Results3D

BOXES = Boxes3D(
    torch.tensor([[1.0, 1.0, 12.0], [-3.0, 1.2, 25.0]]),
    torch.tensor([[4.0, 1.5, 1.7]] * 2),
    torch.tensor([0.5, -1.2]),
)


@pytest.fixture
def result() -> Results3D:
    objects = Objects.named(
        BOXES,
        ["Car", "<b>Van</b>"],
        scores=torch.tensor([0.9, 0.4]),
        boxes2d=torch.tensor([[300.0, 80, 420, 150], [200, 90, 260, 130]]),
    )
    image = torch.full((3, 192, 640), 90, dtype=torch.uint8)
    return Results3D("street", objects, Camera(700.0, 700.0, 320.0, 96.0, width=640, height=192), image)


def test_a_notebook_shows_the_image_and_a_table(result: Results3D) -> None:
    text = result._repr_html_()
    assert (
        "<td>Car</td><td>0.90</td><td>12.04</td>" in text and "&lt;b&gt;Van" in text and "<b>Van" not in text
    )
    assert 'src="data:image/png;base64,' in text
    assert Image.open(io.BytesIO(result._repr_png_())).width <= conversions.NOTEBOOK_WIDTH


def test_a_long_table_ends_with_a_count(result: Results3D) -> None:
    assert "and 8 more" in conversions.html_text(result[[0] * 20])


def test_records_are_flat_and_name_tracks(result: Results3D) -> None:
    rows = conversions.records(result)
    assert rows[0] | {"x": 1.0, "length": 4.0, "image": "street"} == rows[0]
    assert tuple(rows[0]) == conversions.records_columns()
    tracked = replace(result.objects, tracks=torch.tensor([7, 8]), velocity=torch.tensor([[3.0, 0, 4.0]] * 2))
    assert conversions.records(replace(result, objects=tracked))[1] | {"track": 8, "speed": 5.0} == rows[
        1
    ] | {
        "track": 8,
        "speed": 5.0,
    }


def test_pandas(result: Results3D) -> None:
    pandas = pytest.importorskip("pandas")
    frame = conversions.to_pandas([result, result])
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 4
    assert frame.groupby("class")["z"].mean()["Car"] == pytest.approx(12.0)
    assert list(result[[]].to_pandas().columns) == list(conversions.records_columns())


def test_supervision(result: Results3D) -> None:
    supervision = pytest.importorskip("supervision")
    found = result.to_supervision()
    assert isinstance(found, supervision.Detections) and len(found) == 2
    np.testing.assert_allclose(found.xyxy[0], [300, 80, 420, 150])
    assert found[found.confidence > 0.5].data["class_name"].tolist() == ["Car"]
    assert len(result[[]].to_supervision()) == 0


def test_rerun(result: Results3D) -> None:
    rerun = pytest.importorskip("rerun")
    rerun.init("monolift test", spawn=False)
    conversions.log_to_rerun(result)


@pytest.mark.parametrize("name", ["pandas", "supervision", "rerun"])
def test_a_library_that_is_missing_is_named(
    result: Results3D, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, name, None)
    call = {"pandas": result.to_pandas, "supervision": result.to_supervision}.get(
        name, lambda: conversions.log_to_rerun(result)
    )
    with pytest.raises(MissingExtraError, match="pip install"):
        call()
