"""The differentiable renderer: meshes and cameras in, colours, silhouettes and metric depth out.

Two ways to one result: PyTorch operations on any device, and on the CPU fused kernels (``numba_path``), which are taken when
numba is installed (``pip install "monolift[fast]"``) and the numbers are float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Literal

from monolift.errors import InputError, MissingExtraError
from monolift.geometry import Camera
from monolift.render.antialias import antialias
from monolift.render.kato import attach_kato_gradient
from monolift.render.mesh import Mesh
from monolift.render.rasterize import project, rasterize
from monolift.render.shade import shade
from monolift.typing import Float, Int, Tensor

EdgeRule = Literal["antialias", "kato"]
Engine = Literal["auto", "torch", "numba"]


@dataclass(frozen=True)
class Rendering:
    """Images of B objects.

    Attributes:
        colour: (B, C, H, W) the texture's channels over black: to put it on another background, add (1 - silhouette) *
            background. Without a texture C is 0
        silhouette: (B, H, W) share of the pixel that the object covers
        depth: (B, H, W) metres at the pixel's centre, 0 where no face is seen; never smoothed
        face: (B, H, W) index of the face seen, -1 where there is none
    """

    colour: Float[Tensor, "b c h w"]
    silhouette: Float[Tensor, "b h w"]
    depth: Float[Tensor, "b h w"]
    face: Int[Tensor, "b h w"]


def render(
    mesh: Mesh, cameras: Camera, *, edge_rule: EdgeRule = "antialias", engine: Engine = "auto"
) -> Rendering:
    """Images of a batch of objects, each by its own camera; differentiable in vertices, texture and the cameras' numbers.

    Faces with a vertex behind the camera or not finite, or without area, are left out and have no gradient; an object
    outside its image gives an empty image. Raises InputError when batch sizes differ or a camera has no size,
    MissingExtraError when numba is asked for and missing.

    Args:
        mesh: vertices (B, V, 3) in the camera frame, or (V, 3): one mesh seen by all cameras. Closed, or seen only from
            outside: faces that look away are not drawn
        cameras: (B,), of known size, which is the images' (see ``crop_cameras``)
        edge_rule: how silhouettes and colours depend on moving edges. "antialias": exactly, on smoothed edges. "kato": the
            approximate gradient of Kato et al. on hard edges, as MonoDR used it (see ``kato``)
        engine: "auto" takes numba where it can
    """
    if not (cameras.width and cameras.height):
        raise InputError("a camera without an image size cannot render: give width and height")
    if cameras.fx.ndim != 1:
        raise InputError(
            f"expected a batch of cameras (B,), got shape {tuple(cameras.fx.shape)}: Camera.stack makes one"
        )
    vertices = mesh.vertices
    if vertices.ndim == 2:
        vertices = vertices.expand(len(cameras.fx), -1, -1)
    screen = project(vertices, cameras)
    return render_screen(mesh, screen, cameras.height, cameras.width, edge_rule=edge_rule, engine=engine)


def render_screen(
    mesh: Mesh,
    screen: Float[Tensor, "b v 3"],
    height: int,
    width: int,
    *,
    edge_rule: EdgeRule = "antialias",
    engine: Engine = "auto",
) -> Rendering:
    """As ``render``, of vertices that are already projected: column and row in pixels, depth in metres."""
    if edge_rule not in ("antialias", "kato"):
        raise InputError(f'edge_rule must be "antialias" or "kato", got {edge_rule!r}')
    if mesh.texture is not None and mesh.texture.ndim == 4 and len(mesh.texture) != len(screen):
        raise InputError(f"{len(screen)} objects, but {len(mesh.texture)} textures")
    smooth = edge_rule == "antialias"
    kernels = _kernels(engine, screen, mesh)
    if kernels is not None:
        image, depth, face = kernels.render(mesh, screen, height, width, smooth)
    else:
        fragments = rasterize(screen, mesh.faces, height, width)
        image, depth, face = shade(fragments, mesh), fragments.image(fragments.depth), fragments.face_map()
        if smooth:
            image = antialias(image, screen, mesh.faces, mesh.edges, fragments)
    if not smooth:
        image = attach_kato_gradient(image, screen, mesh.faces, face)
    image = image.permute(0, 3, 1, 2)
    return Rendering(image[:, :-1], image[:, -1], depth, face)


def _kernels(engine: Engine, screen: Tensor, mesh: Mesh) -> ModuleType | None:
    """The fused kernels, where they are wanted and can do this job."""
    tensors = [screen] if mesh.texture is None else [screen, mesh.texture]
    fits = all(str(t.device) == "cpu" and str(t.dtype) == "torch.float32" for t in tensors)
    if engine == "torch" or (engine == "auto" and not fits):
        return None
    if engine not in ("auto", "numba"):
        raise InputError(f'engine must be "auto", "torch" or "numba", got {engine!r}')
    if not fits:
        raise InputError("the numba engine renders float32 on the CPU: use engine='torch'")
    module = _numba_path()
    if module is None and engine == "numba":
        raise MissingExtraError("the numba engine", "fast")
    return module


@lru_cache(maxsize=1)
def _numba_path() -> ModuleType | None:
    try:
        from monolift.render import numba_path
    except ImportError:  # absent, or too old for the numpy that is installed
        return None
    return numba_path
