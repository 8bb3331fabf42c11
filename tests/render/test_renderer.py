"""The renderer's images and gradients, by the PyTorch path: hand-worked cases, finite differences, gradcheck."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch

from monolift.errors import InputError, MissingExtraError
from monolift.geometry import Camera
from monolift.render import kato, renderer
from monolift.render.mesh import Mesh, icosphere
from monolift.render.rasterize import project
from monolift.render.renderer import render, render_screen
from monolift.render.texture import sample_texture
from monolift.typing import Tensor
from render_scene import (
    CarScene,
    GradientReport,
    car_scene,
    compare,
    finite_differences,
    hard_target,
    silhouette_gradient,
    supersampled_coverage,
)

PLATE = torch.tensor([[0, 1, 2], [0, 2, 3]])


def plate(left: float, top: float, right: float, bottom: float, depth: float) -> Tensor:
    """Screen vertices (4, 3) of a rectangle that faces the camera, in pixels."""
    corners = [[left, top], [left, bottom], [right, bottom], [right, top]]
    return torch.tensor([[*corner, depth] for corner in corners])


def flat(colour: list[float]) -> Tensor:
    return torch.tensor(colour)[:, None, None]


# --- antialiasing


def test_a_rectangle_covers_exact_shares_of_its_border_pixels() -> None:
    screen = plate(2.3, 1.6, 9.8, 6.2, 5.0)[None].requires_grad_()
    silhouette = render_screen(Mesh(screen[0].detach(), PLATE), screen, 9, 13, engine="torch").silhouette[0]
    # Pixel 2 spans [1.5, 2.5], pixel 10 [9.5, 10.5]; row 1 spans [0.5, 1.5], row 6 [5.5, 6.5].
    expected = torch.zeros(13)
    expected[2], expected[3:10], expected[10] = 0.2, 1.0, 0.3
    torch.testing.assert_close(silhouette[3], expected)
    expected = torch.zeros(9)
    expected[2:6], expected[6] = 1.0, 0.7
    expected[2] = 0.9  # the top edge at 1.6 cuts a tenth of row 2, [1.5, 2.5]
    torch.testing.assert_close(silhouette[:, 5], expected)
    (gradient,) = torch.autograd.grad(silhouette[2:7].sum(), screen)
    # Rows 2 to 6 cross the left edge; moving it right by 1 takes 1 from each.
    assert float(gradient[0, :2, 0].sum()) == pytest.approx(-5)
    assert float(gradient[0, 2:, 0].sum()) == pytest.approx(5)


def test_a_nearer_surface_is_smoothed_against_the_farther_one() -> None:
    screen = torch.cat([plate(1.0, 1.0, 5.3, 8.0, 4.0), plate(0.2, 0.2, 11.4, 9.0, 6.0)])[None]
    uvs = torch.cat([torch.full((2, 3, 2), 0.25), torch.full((2, 3, 2), 0.75)])
    texture = torch.tensor([[[1.0, 0.0], [0.0, 0.2]], [[0.0, 0.0], [0.0, 0.6]]])
    mesh = Mesh(screen[0], torch.cat([PLATE, PLATE + 4]), uvs, texture)
    image = render_screen(mesh, screen, 10, 13, engine="torch")
    near, far = torch.tensor([1.0, 0.0]), torch.tensor([0.2, 0.6])
    row = image.colour[0, :, 4].T
    torch.testing.assert_close(row[4], near)
    torch.testing.assert_close(row[5], 0.8 * near + 0.2 * far)  # pixel 5 spans [4.5, 5.5], the edge is at 5.3
    torch.testing.assert_close(row[6], far)
    torch.testing.assert_close(
        image.silhouette[0, 4, 1:11], torch.ones(10)
    )  # seamless where surface meets surface
    assert image.depth[0, 4, [5, 6, 12]].tolist() == [4.0, 6.0, 0.0]
    torch.testing.assert_close(row[12], torch.zeros(2))


def test_the_area_of_a_silhouette_is_right_to_half_a_percent() -> None:
    scene = car_scene(3, 48)
    screen = scene.screen(scene.pose)
    smooth = render_screen(scene.mesh, screen, 48, 48, engine="torch").silhouette
    truth = supersampled_coverage(screen, scene.mesh.faces, 48)
    area = truth.sum((1, 2))
    assert float(((smooth.sum((1, 2)) - area) / area).abs().max()) < 5e-3
    hard = render_screen(scene.mesh, screen, 48, 48, engine="torch", edge_rule="kato").silhouette
    assert float((smooth - truth).abs().mean()) < 0.35 * float((hard - truth).abs().mean())


@lru_cache(maxsize=1)
def sixteen_cars() -> tuple[CarScene, Tensor, tuple[Tensor, Tensor]]:
    scene = car_scene(16, 128)
    target = hard_target(scene, 128)
    return scene, target, finite_differences(scene, 128, target, factor=8)


def gradient_report(edge_rule: str) -> GradientReport:
    scene, target, truth = sixteen_cars()
    return compare(*silhouette_gradient(scene, 128, target, edge_rule=edge_rule, engine="torch"), *truth)


def test_gradient_of_the_silhouette_equals_finite_differences() -> None:
    """1 - soft IoU over 16 cars x 7 degrees of freedom (benchmarks/renderer.py asks it of a 16 x 16-fold reference)."""
    report = gradient_report("antialias")
    assert report.cosine > 0.999
    assert 0.97 < report.slope < 1.03
    assert report.worst_freedom[1] < 0.08
    assert report.loss_error < 2e-3


def test_the_rule_of_kato_points_the_same_way() -> None:
    report = gradient_report("kato")
    assert report.cosine > 0.98
    assert 0.85 < report.slope < 1.15


def test_everything_passes_gradcheck() -> None:
    """Colour, silhouette and depth with respect to vertices, texture and the cameras' numbers, in float64."""
    vertices, faces = icosphere(0)
    generator = torch.Generator().manual_seed(2)
    uvs = torch.rand(len(faces), 3, 2, generator=generator)
    points = (vertices + torch.tensor([0.1, 0.05, 6.0])).double()[None].requires_grad_()
    texture = torch.rand(2, 4, 5, generator=generator).double().requires_grad_()
    focal = torch.tensor([24.0], dtype=torch.float64, requires_grad=True)
    middle = torch.tensor([5.7], dtype=torch.float64, requires_grad=True)
    mesh = Mesh(vertices.double(), faces, uvs.double(), texture.detach())

    def outputs(
        points: Tensor, texture: Tensor, focal: Tensor, middle: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        camera = Camera(focal, 23.0, middle, 4.9, width=12, height=10)
        image = render(mesh.with_vertices(points).with_texture(texture), camera)
        return image.colour, image.silhouette, image.depth

    assert int((outputs(points, texture, focal, middle)[1] > 0).sum()) > 40
    assert torch.autograd.gradcheck(
        outputs, (points, texture, focal, middle), eps=1e-7, atol=1e-5, fast_mode=True
    )


# --- texture


def test_textures_are_read_between_texel_centres() -> None:
    texture = torch.tensor([[[[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]]], [[[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]]]])
    # Texel i of 3 lies at (i + 1/2) / 3, of 2 at (i + 1/2) / 2.
    uv = torch.tensor(
        [[0.5, 0.25], [0.5, 0.5], [1 / 3, 0.75], [0.0, 0.0], [1.0, 1.0], [-3.0, 7.0], [0.3, 0.3]]
    )
    owner = torch.tensor([0, 0, 0, 0, 0, 0, 1])
    read = sample_texture(texture, uv, owner)[:, 0]
    torch.testing.assert_close(read, torch.tensor([1.0, 6.0, 10.5, 0.0, 12.0, 10.0, 5.0]))
    single = sample_texture(torch.tensor([[[[3.0]]]]), uv, torch.zeros(7, dtype=torch.long))
    torch.testing.assert_close(single, torch.full((7, 1), 3.0))


def test_reading_textures_passes_gradcheck() -> None:
    texture = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    uv = (torch.rand(9, 2, dtype=torch.float64) * 1.2 - 0.1).requires_grad_()
    owner = torch.arange(9) % 2
    assert torch.autograd.gradcheck(lambda t, p: sample_texture(t, p, owner), (texture, uv))


# --- the rule of Kato et al.


def slow_pull(image: Tensor, grad: Tensor, row: int, column: int, down: int, right: int) -> float:
    """The rule for one pixel and axis, by its two neighbours."""
    forward = back = 0.0
    height, width, _ = image.shape
    here = (row, column)
    for first, second in (
        ((row - down, column - right), here),
        (here, (row + down, column + right)),
    ):
        if not (0 <= first[0] <= second[0] < height and 0 <= first[1] <= second[1] < width):
            continue
        forward -= float((image[first] - image[second]) @ grad[second])
        back -= float((image[second] - image[first]) @ grad[first])
    if max(forward, back) <= 0 or forward == back:
        return 0.0
    return -forward if forward > back else back


def test_kato_rule_pixel_by_pixel() -> None:
    image, grad = torch.rand(1, 4, 5, 2, dtype=torch.float64), torch.randn(1, 4, 5, 2, dtype=torch.float64)
    for axis, down, right in ((2, 0, 1), (1, 1, 0)):
        expected = [[slow_pull(image[0], grad[0], y, x, down, right) for x in range(5)] for y in range(4)]
        pull = kato._pull(image, grad, axis)
        torch.testing.assert_close(pull[0], torch.tensor(expected, dtype=torch.float64))
        assert 0 < int((pull != 0).sum()) < 20  # some pixels have nowhere better to go
    assert kato._pull(image[:, :1], grad[:, :1], 1).abs().sum() == 0


def test_kato_pulls_a_plate_towards_its_target_and_leaves_the_image_hard() -> None:
    screen = plate(2.2, 2.2, 6.4, 6.4, 5.0)[None].requires_grad_()
    mesh = Mesh(screen[0].detach(), PLATE)
    silhouette = render_screen(mesh, screen, 12, 12, edge_rule="kato", engine="torch").silhouette
    assert sorted(silhouette.unique().tolist()) == [0.0, 1.0]
    target = torch.zeros(1, 12, 12)
    target[:, 3:7, 5:10] = 1  # to the right of it
    (gradient,) = torch.autograd.grad((silhouette - target).square().sum(), screen)
    assert bool((gradient[0, :, 0] <= 0).all())
    assert float(gradient[0, :, 0].sum()) < -1
    assert float(gradient[0, :, 2].abs().sum()) == 0


# --- what is asked for, and what is refused


def test_one_mesh_is_shared_by_many_cameras() -> None:
    vertices, faces = icosphere(1)
    mesh = Mesh(
        vertices + torch.tensor([0, 0, 6.0]), faces, torch.rand(len(faces), 3, 2), torch.rand(3, 4, 4)
    )
    cameras = Camera([30.0, 40.0], 30.0, [8.0, 11.0], 8.0, width=20, height=16)
    both = render(mesh, cameras, engine="torch")
    for k in range(2):
        one = render(mesh, cameras[[k]], engine="torch")
        for name in ("colour", "silhouette", "depth", "face"):
            torch.testing.assert_close(getattr(both, name)[k], getattr(one, name)[0])
    assert both.colour.shape == (2, 3, 16, 20)
    assert float((both.silhouette[0] - both.silhouette[1]).abs().max()) > 0.5


@pytest.mark.parametrize(
    ("engine", "edge_rule"), [("torch", "antialias"), ("torch", "kato"), ("numba", "antialias")]
)
def test_objects_that_are_not_seen_give_empty_images_and_no_gradient(engine: str, edge_rule: str) -> None:
    if engine == "numba":
        pytest.importorskip("numba")
    vertices, faces = icosphere(1)
    places = torch.tensor([[0, 0, 6.0], [0, 0, -6.0], [500.0, 0, 6.0], [0, 0, 0.0], [0, 0, torch.nan]])
    points = (vertices + places[:, None]).requires_grad_()
    mesh = Mesh(vertices, faces).with_vertices(points)
    cameras = Camera.stack([Camera(40.0, 40.0, 7.5, 7.5, width=16, height=16)] * 5)
    screen = project(points, cameras)
    image = render_screen(mesh, screen, 16, 16, edge_rule=edge_rule, engine=engine)  # type: ignore[arg-type]
    covered = image.silhouette.detach().sum((1, 2))
    assert float(covered[0]) > 100
    assert covered[1:].tolist() == [0.0, 0.0, 0.0, 0.0]
    assert image.colour.shape == (5, 0, 16, 16)  # no texture, no colours
    (gradient,) = torch.autograd.grad(
        image.silhouette.square().sum() + (image.silhouette - 1).square().sum() + image.depth.sum(),
        screen,
    )
    assert bool(gradient[0].abs().sum() > 0)
    assert float(gradient[1:].abs().sum()) == 0


def test_no_objects() -> None:
    vertices, faces = icosphere(0)
    image = render(
        Mesh(vertices.expand(0, 12, 3), faces), Camera(*torch.ones(4, 0), width=8, height=6), engine="torch"
    )
    assert image.silhouette.shape == (0, 6, 8)


def test_what_is_refused() -> None:
    vertices, faces = icosphere(0)
    mesh = Mesh(vertices + torch.tensor([0, 0, 5.0]), faces)
    cameras = Camera.stack([Camera(10.0, 10.0, 4.0, 4.0, width=8, height=8)])
    with pytest.raises(InputError, match="give width and height"):
        render(mesh, Camera.stack([Camera(10.0, 10.0, 4.0, 4.0)]))
    with pytest.raises(InputError, match=r"Camera\.stack makes one"):
        render(mesh, Camera(10.0, 10.0, 4.0, 4.0, width=8, height=8))
    with pytest.raises(InputError, match="1 objects, but 2 textures"):
        render(Mesh(mesh.vertices, faces, torch.zeros(20, 3, 2), torch.zeros(2, 3, 2, 2)), cameras)
    with pytest.raises(InputError, match="float32 on the CPU"):
        render(Mesh(mesh.vertices.double(), faces), cameras, engine="numba")


def test_without_numba_the_torch_path_is_taken_and_numba_asked_for_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vertices, faces = icosphere(0)
    mesh = Mesh(vertices + torch.tensor([0, 0, 5.0]), faces)
    cameras = Camera.stack([Camera(20.0, 20.0, 4.0, 4.0, width=8, height=8)])
    monkeypatch.setattr(renderer, "_numba_path", lambda: None)
    assert float(render(mesh, cameras).silhouette.sum()) > 10
    with pytest.raises(MissingExtraError, match=r"monolift\[fast\]"):
        render(mesh, cameras, engine="numba")
