"""Colours of the pixels that see a face."""

from __future__ import annotations

import torch

from monolift.render.mesh import Mesh
from monolift.render.rasterize import Fragments
from monolift.render.texture import sample_texture
from monolift.typing import Float, Tensor


def shade(fragments: Fragments, mesh: Mesh) -> Float[Tensor, "b h w channels"]:
    """The texture's channels and, last, coverage: 1 where a face is seen; all zero elsewhere. No lighting: a texture holds
    the colours that are seen."""
    covered = torch.ones_like(fragments.depth)[:, None]
    if mesh.texture is None or mesh.uvs is None:
        return fragments.image(covered)
    texture = mesh.texture.expand(fragments.shape[0], *mesh.texture.shape[-3:])
    uv = fragments.interpolate(mesh.uvs.to(fragments.weights.dtype))
    return fragments.image(torch.cat([sample_texture(texture, uv, fragments.owner), covered], 1))
