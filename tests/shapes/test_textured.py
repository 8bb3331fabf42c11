from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from monolift.data.kitti_facts import CAR_SIZE
from monolift.errors import InputError
from monolift.geometry import Camera
from monolift.render.mesh import Mesh
from monolift.render.renderer import render
from monolift.shapes.textured import BUNDLED, decode_mesh, load_textured, on_sphere, save_textured
from monolift.shapes.textured_conv import ConvDecoder, cube_topology
from monolift.shapes.textured_training import Family, principal_components, sphere_regulariser, train_textured
from monolift.shapes.textured_views import Views, ViewTraining, inflation, train_on_views


@pytest.fixture(scope="module")
def family() -> Family:
    return Family.sample(12, seed=5)


def test_the_bundled_decoder_tells_unseen_cars(family: Family) -> None:
    """The best of many codes is nearer to a car it was not trained on than the mean car is, in shape and in texture."""
    decoder = load_textured()
    codes = on_sphere(torch.randn(4000, 8))
    for known, told in (
        (family.vertices, decoder.vertices(codes)),
        (family.textures[:, :, ::4, ::4], decoder.textures(codes[:1000])[:, :, ::4, ::4]),
    ):
        off = torch.cdist(known.flatten(1), told.flatten(1), p=1).amin(1)
        off_mean = (known - known.mean(0)).flatten(1).abs().sum(1)
        assert (off / off_mean).median() < 0.75


def test_meshes_fill_their_boxes_and_look_outward() -> None:
    decoder = load_textured()
    size = torch.tensor([[3.9, 1.5, 1.6], [4.4, 1.7, 1.8]])
    mesh = decode_mesh(decoder, torch.randn(2, 8), torch.randn(2, 8), size)
    torch.testing.assert_close(mesh.vertices.amax(1) - mesh.vertices.amin(1), size)
    a, b, c = mesh.vertices[:, mesh.faces].unbind(2)
    volume = (torch.linalg.cross(a, b) * c).sum((1, 2)) / 6
    assert bool((volume > 0.4 * size.prod(1)).all()) and bool((volume < size.prod(1)).all())
    assert mesh.texture is not None and mesh.texture.min() >= 0 and mesh.texture.max() <= 1


def test_codes_of_any_length_are_the_same_car() -> None:
    decoder, code = load_textured(), torch.randn(3, 8)
    torch.testing.assert_close(decoder.vertices(code), decoder.vertices(7 * code))
    torch.testing.assert_close(decoder.textures(code), decoder.textures(0.1 * code))


def test_files_come_back_and_are_small(tmp_path: Path, family: Family) -> None:
    assert BUNDLED.stat().st_size <= 2_000_000
    decoder, report = train_textured(
        family, CAR_SIZE, steps=3, batch=8, shape_components=9, texture_components=8
    )
    assert report.shape > 0
    path = tmp_path / "decoder.safetensors"
    save_textured(decoder, path)
    back, code = load_textured(path), torch.randn(2, 8)
    assert (back.vertices(code) - decoder.vertices(code)).abs().max() < 5e-3  # 16 bits
    assert torch.equal(back.faces, decoder.faces)
    for wrong in (tmp_path / "none.safetensors", Path(__file__)):
        with pytest.raises(InputError, match=wrong.name):
            load_textured(wrong)


def test_training_learns(family: Family) -> None:
    _, before = train_textured(family, CAR_SIZE, steps=1, batch=12, shape_components=8, texture_components=8)
    _, after = train_textured(family, CAR_SIZE, steps=150, batch=12, shape_components=8, texture_components=8)
    assert after.shape < 0.7 * before.shape and after.shape < 0.5 * after.shape_of_mean
    assert after.texture < 0.7 * before.texture and after.texture < 0.6 * after.texture_of_mean


def test_principal_components_are_those_of_the_singular_values() -> None:
    values = torch.randn(9, 4, 3)
    mean, basis, scores = principal_components(values, 3)
    u, s, v = torch.linalg.svd((values - values.mean(0)).flatten(1), full_matrices=False)
    expected = (u[:, :3] * s[:3]) @ v[:3]
    torch.testing.assert_close((scores @ basis.flatten(1)), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores.square().mean(0), torch.ones(3))
    torch.testing.assert_close(mean, values.mean(0))


def test_the_regulariser_by_hand() -> None:
    """Eq. 1: each sample takes its nearest code, by L1."""
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    samples = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    assert sphere_regulariser(codes, samples).item() == pytest.approx((0.6 + 0.2 + 0) / 2)


def test_the_regulariser_spreads_codes() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = (torch.tensor([1.0] + [0.0] * 7) + 0.1 * torch.randn(64, 8, generator=generator)).requires_grad_()
    spread = on_sphere(codes).detach().mean(0).norm()
    optimiser = torch.optim.Adam([codes], lr=0.05)
    for _ in range(60):
        samples = on_sphere(torch.randn(64, 8, generator=generator))
        optimiser.zero_grad()
        sphere_regulariser(on_sphere(codes), samples).backward()
        optimiser.step()
    assert on_sphere(codes).detach().mean(0).norm() < 0.6 * spread


# --- the convolutional generator


def test_the_cube_is_closed_and_of_the_published_size() -> None:
    decoder = ConvDecoder(width=16)
    vertices = decoder.vertices(torch.randn(2, 8))
    assert vertices.shape == (2, 1352, 3) and decoder.faces.shape == (2700, 3)
    mesh = Mesh(decoder.sphere, decoder.faces)
    assert bool((mesh.edges.faces >= 0).all())  # every edge has two faces
    a, b, c = decoder.sphere[decoder.faces].unbind(1)
    assert bool(((torch.linalg.cross(b - a, c - a) * (a + b + c)).sum(1) > 0).all())
    assert decoder.textures(torch.randn(1, 8)).shape == (1, 3, 64, 384)


def test_the_convolutional_generator_learns_from_views() -> None:
    """A black box seen from four sides: silhouettes grow towards it."""
    torch.manual_seed(1)
    decoder = ConvDecoder(width=16)
    size, count = 32, 4
    yaw = torch.arange(count) * torch.pi / 2 + 0.4
    rotation = torch.stack([torch.stack([yaw.cos(), 0 * yaw, yaw.sin()], 1), torch.tensor([[0.0, 1, 0]]).expand(count, 3),
                            torch.stack([-yaw.sin(), 0 * yaw, yaw.cos()], 1)], 1)  # fmt: skip
    cameras = Camera.stack([Camera(60.0, 60.0, 15.5, 15.5, width=size, height=size)] * count)
    ball = 2 * decoder.sphere.detach()  # of radius one half
    box = ball.sign() * ball.abs() ** 0.4 * torch.tensor([0.7, 0.3, 0.3])
    posed = box @ rotation.mT + torch.tensor([0.0, 0, 2.0])
    seen = render(Mesh(posed, decoder.faces), cameras).silhouette
    rgba = torch.cat([torch.zeros(count, 3, size, size), 255 * seen[:, None]], 1).round().to(torch.uint8)
    views = Views(
        torch.zeros(count).long(), rgba, rotation, torch.tensor([[0.0, 0, 2.0]]).expand(count, 3), cameras
    )
    losses: list[float] = []
    training = ViewTraining(width=16, size=size, steps=12, batch=4, lr=3e-2)
    train_on_views(decoder, views, training, on_step=lambda _, loss: losses.append(loss))
    assert min(losses[-3:]) < 0.8 * losses[0]


def test_the_layers_of_the_released_code() -> None:
    """Numbers of weights of view_prior_learning's `conv` decoders, but for the first layers, which take eight numbers; the
    start is its sphere of radius one half, halved."""
    decoder = ConvDecoder()
    width, codes = (512, 256, 128, 64), 8
    shape = (
        codes * width[0] * 4 + sum(9 * a * b for a, b in pairwise(width)) + 9 * 64 * 3 + 3 + 2 * sum(width)
    )
    texture = codes * width[0] * 16 + sum(25 * a * b for a, b in pairwise((*width, 3))) + 3 + 2 * sum(width)
    counts = [sum(p.numel() for p in net.parameters()) for net in (decoder.shape_net, decoder.texture_net)]
    assert counts == [6 * shape, 6 * texture]
    assert decoder.texture_base.shape == (3, 64, 384) and decoder.shape_base.shape == (1352, 3)
    assert decoder.sphere.norm(dim=1).tolist() == pytest.approx([0.25] * 1352, abs=2e-6)
    with torch.no_grad():
        moved = decoder.plain_vertices(torch.randn(2, 8)) - decoder.sphere
    assert 0 < moved.abs().max() < 0.2  # vertex_scaling 0.01: it begins as a ball, not as a crumpled sheet
    assert decoder.vertices(torch.randn(1, 8)).abs().max().item() == pytest.approx(0.5)


def test_the_cube_of_the_released_code() -> None:
    """Vertices in the order of its loops over z, y, x; faces as its init_faces makes them, whatever their order and winding."""
    lattice, _, faces, _ = cube_topology()
    ours = ((lattice + 1) * 15 / 2).round().long()
    ends = (0, 15)
    published = [
        (x, y, z)
        for z in range(16)
        for y in range(16)
        for x in range(16)
        if x in ends or y in ends or z in ends
    ]
    assert sorted(map(tuple, ours.tolist())) == sorted(published)
    theirs = set()
    for axis in range(3):
        for end in ends:
            for i in range(15):
                for j in range(15):
                    square = [(i, j), (i + 1, j), (i, j + 1), (i + 1, j + 1)]
                    corners = [tuple(torch.tensor([a, b, end]).roll(axis).tolist()) for a, b in square]
                    theirs.add(frozenset(corners))
    squares = [frozenset(tuple(ours[v].tolist()) for v in face) for face in faces]
    assert len(squares) == 2700 == 2 * len(theirs)
    assert all(any(face < square for square in theirs) for face in squares[:200])


def test_inflation_pulls_along_the_normals_by_the_released_rule() -> None:
    points = torch.rand(2, 6, 3, dtype=torch.float64).requires_grad_()
    faces = torch.tensor([[0, 1, 2], [2, 3, 4], [4, 5, 0]])
    corners = points[:, faces]
    a, b, c = corners.unbind(2)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    released = sum(((v + normal).detach() - v).square().sum(-1).add(1e-5).sqrt().sum() for v in (a, b, c)) / 2
    (expected,) = torch.autograd.grad(released, points)
    (found,) = torch.autograd.grad(inflation(points, faces), points)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_files_of_the_convolutional_generator_come_back(tmp_path: Path) -> None:
    torch.manual_seed(2)
    decoder = ConvDecoder(width=16).eval()
    decoder.middle_shape = torch.nn.functional.normalize(torch.randn(8), dim=0)
    save_textured(decoder, tmp_path / "conv.safetensors")
    back = load_textured(tmp_path / "conv.safetensors")
    assert isinstance(back, ConvDecoder) and back.width == 16 and not back.training
    codes = torch.randn(2, 8)
    with torch.no_grad():
        assert (back.vertices(codes) - decoder.vertices(codes)).abs().max() < 0.01
        assert (back.textures(codes) - decoder.textures(codes)).abs().max() < 0.01
    torch.testing.assert_close(back.middle_shape, decoder.middle_shape, atol=1e-3, rtol=0)
    assert torch.equal(back.faces, decoder.faces)
    tensors = load_file(tmp_path / "conv.safetensors")
    header = {"format": "monolift-textured-1", "generator": "conv", "config": '{"width": 16}'}
    for broken in ({"faces": tensors["faces"]}, {**tensors, "more": tensors["faces"].clone()}):
        save_file(broken, tmp_path / "broken.safetensors", header)
        with pytest.raises(InputError, match="expected a textured decoder"):
            load_textured(tmp_path / "broken.safetensors")
