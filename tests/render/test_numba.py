"""The fused kernels give what the PyTorch path gives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from monolift.render.mesh import Mesh
from monolift.render.renderer import Rendering, render_screen
from monolift.shapes.car_mesh import build_mesh
from monolift.shapes.procedural import sample_shape
from monolift.typing import Tensor
from render_scene import CarScene, car_scene, scene_of

pytest.importorskip("numba", reason="the fused kernels need the extra: pip install 'monolift[fast]'")

HEIGHT, WIDTH = 40, 48


def family_scene() -> CarScene:
    """Four cars of the procedural family: bodies that hide their wheels, edges with one face."""
    scene = car_scene(4, WIDTH, seed=2)
    rng = np.random.default_rng(4)
    cars = [build_mesh(sample_shape(rng, kind)) for kind in ("small", "car", "suv", "van")]
    vertices = torch.from_numpy(np.stack([car.vertices for car in cars])).float()
    sizes = vertices.amax(1) - vertices.amin(1)
    faces = torch.from_numpy(cars[0].faces.copy())
    uvs = torch.from_numpy(cars[0].uv[cars[0].faces]).float()
    mesh = Mesh(vertices / sizes[:, None], faces, uvs, scene.mesh.texture)
    return scene_of(mesh, torch.cat([scene.pose[:, :4], sizes], 1), WIDTH)


def spoiled_scene() -> CarScene:
    """Cars partly outside their crop, behind the camera, with a vertex that is NaN, and one turned inside out."""
    scene = car_scene(4, WIDTH, seed=3)
    pose = scene.pose.clone()
    pose[0, 0] += 1.5
    pose[1, 2] = 0.5
    vertices = scene.mesh.vertices.clone()
    vertices[2, 5] = torch.nan
    vertices[3] *= torch.tensor([1.0, 1.0, -1.0])
    return CarScene(scene.mesh.with_vertices(vertices), pose, scene.cameras)


SCENES = {"spheres": lambda: car_scene(4, WIDTH, seed=1), "family": family_scene, "spoiled": spoiled_scene}


def images(scene: CarScene, engine: str, edge_rule: str = "antialias") -> tuple[Rendering, Tensor, Tensor]:
    """The images, and the gradients of a loss on all of them for screen vertices and texture."""
    screen = scene.screen(scene.pose).requires_grad_()
    assert scene.mesh.texture is not None
    texture = scene.mesh.texture.clone().requires_grad_()
    mesh = scene.mesh.with_texture(texture)
    rendering = render_screen(mesh, screen, HEIGHT, WIDTH, engine=engine, edge_rule=edge_rule)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros(())
    for image in (rendering.colour, rendering.silhouette, rendering.depth):
        loss = loss + (image * torch.randn(image.shape, generator=generator)).sum()
    return rendering, *torch.autograd.grad(loss, (screen, texture))


@pytest.mark.parametrize("edge_rule", ["antialias", "kato"])
@pytest.mark.parametrize("name", list(SCENES))
def test_both_paths_agree(name: str, edge_rule: str) -> None:
    scene = SCENES[name]()
    expected, expected_screen, expected_texture = images(scene, "torch", edge_rule)
    rendering, grad_screen, grad_texture = images(scene, "numba", edge_rule)
    different = rendering.face != expected.face
    assert int(different.sum()) <= 2  # pixels on an edge to the last bit
    for field in ("colour", "silhouette", "depth"):
        mine, theirs = getattr(rendering, field), getattr(expected, field)
        off = (mine - theirs).abs() > 1e-5 * max(1.0, float(theirs.abs().max()))
        assert int(off.sum()) <= 10 * int(different.sum()), field
    assert int((expected.face >= 0).sum()) > 500
    for mine, theirs in ((grad_screen, expected_screen), (grad_texture, expected_texture)):
        assert float((mine - theirs).norm()) < 0.01 * float(theirs.norm())


def test_threads_change_nothing() -> None:
    scene = car_scene(5, WIDTH, seed=1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = images(scene, "numba")
        torch.set_num_threads(3)
        together = images(scene, "numba")
        with ThreadPoolExecutor(2) as pool:  # two callers at once
            callers = [pool.submit(images, scene, "numba") for _ in range(2)]
            together_twice = [caller.result() for caller in callers]
    finally:
        torch.set_num_threads(before)
    for other in (together, *together_twice):
        assert torch.equal(alone[0].colour, other[0].colour)
        assert torch.equal(alone[1], other[1])
        assert torch.equal(alone[2], other[2])


def test_auto_takes_the_kernels_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    from monolift.render import numba_path

    calls = []
    kernels = numba_path.render
    monkeypatch.setattr(numba_path, "render", lambda *a: calls.append(a) or kernels(*a))
    scene = car_scene(1, 16)
    screen = scene.screen(scene.pose)
    bare = Mesh(scene.mesh.vertices, scene.mesh.faces)
    image = render_screen(bare, screen, 16, 16)
    assert len(calls) == 1
    assert image.colour.shape == (1, 0, 16, 16)
    torch.testing.assert_close(
        image.silhouette, render_screen(bare, screen, 16, 16, engine="torch").silhouette
    )
    render_screen(Mesh(bare.vertices.double(), bare.faces), screen.double(), 16, 16)
    assert len(calls) == 1  # float64 is the other path's


def test_no_objects_no_faces() -> None:
    scene = car_scene(1, 16)
    screen = scene.screen(scene.pose)
    empty = Mesh(scene.mesh.vertices[:0], scene.mesh.faces)
    assert render_screen(empty, screen[:0], 16, 12, engine="numba").silhouette.shape == (0, 16, 12)
    no_faces = Mesh(scene.mesh.vertices, scene.mesh.faces[:0])
    assert float(render_screen(no_faces, screen, 16, 12, engine="numba").silhouette.sum()) == 0
