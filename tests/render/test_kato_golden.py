"""The edge rule "kato" against the values that the released program of Kato and Harada (CVPR 2019) gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from monolift.render import kato
from monolift.render.mesh import Mesh
from monolift.render.rasterize import rasterize
from monolift.render.renderer import render_screen
from monolift.typing import Tensor

SIZE = 32
PER_PIXEL = 2 / SIZE  # the program's coordinates run from -1 to 1


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(Path(__file__).parent / "golden" / "kato.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def test_the_same_faces_are_seen(golden: dict[str, Tensor]) -> None:
    face = rasterize(golden["screen"][None], golden["faces"], SIZE, SIZE).face_map()[0]
    assert torch.equal(face, golden["face_index"].long())
    assert torch.equal((face >= 0).double(), golden["silhouette"])
    assert 0.1 < golden["silhouette"].mean() < 0.8


@pytest.mark.parametrize(("image", "grad", "expected"), [
    ("silhouette", "grad", "vpl_pixel_grad"), ("colour", "colour_grad", "vpl_colour_pixel_grad")])  # fmt: skip
def test_each_pixel_is_pulled_as_in_the_released_code(
    golden: dict[str, Tensor], image: str, grad: str, expected: str
) -> None:
    values, gradient = (golden[name].reshape(1, SIZE, SIZE, -1) for name in (image, grad))
    pulls = torch.stack([kato._pull(values, gradient, axis) for axis in (2, 1)], -1)[0]
    covered = golden["face_index"] >= 0
    released = PER_PIXEL * golden[expected]
    assert int((released[covered] != 0).sum()) > 40
    assert relative(pulls[covered], released[covered]) < 1e-12


def test_vertices_get_the_released_gradient(golden: dict[str, Tensor]) -> None:
    """The whole renderer: silhouette, loss, gradient of the projected vertices."""
    screen = golden["screen"][None].requires_grad_()
    mesh = Mesh(golden["vertices"], golden["faces"])
    silhouette = render_screen(mesh, screen, SIZE, SIZE, edge_rule="kato", engine="torch").silhouette[0]
    (silhouette - golden["target"]).square().sum().backward()
    assert screen.grad is not None
    assert relative(screen.grad[0, :, :2], PER_PIXEL * golden["vpl_vertex_grad"]) < 1e-12
    assert float(screen.grad[0, :, 2].abs().max()) == 0


def test_colours_give_vertices_the_released_gradient(golden: dict[str, Tensor]) -> None:
    screen = golden["screen"][None].requires_grad_()
    image = kato.attach_kato_gradient(
        golden["colour"][None], screen, golden["faces"], golden["face_index"].long()[None]
    )
    (found,) = torch.autograd.grad((image * golden["colour_grad"][None]).sum(), screen)
    assert relative(found[0, :, :2], PER_PIXEL * golden["vpl_colour_vertex_grad"]) < 1e-12


def test_the_rule_of_2018_is_another(golden: dict[str, Tensor]) -> None:
    """Its pull falls with the distance along a row: docs/renderer.md admits it."""
    ours, theirs = golden["vpl_vertex_grad"].flatten(), golden["n3mr_vertex_grad"].flatten()
    assert torch.equal(golden["n3mr_face_index"], golden["face_index"])
    cosine = float(ours @ theirs / ours.norm() / theirs.norm())
    assert 0.3 < cosine < 0.5 and theirs.norm() > 10 * ours.norm()
