"""Reading textures."""

from __future__ import annotations

import torch

from monolift.typing import Float, Int, Tensor


def sample_texture(
    texture: Float[Tensor, "b c h w"], uv: Float[Tensor, "p 2"], owner: Int[Tensor, " p"]
) -> Float[Tensor, "p c"]:
    """Bilinear reading of texture ``owner[p]`` at ``uv[p]``, differentiable in texture and uv.

    uv: column and row in [0, 1] from the top left corner of the texture, so that texel i lies at (i + 0.5) / w; beyond the
    outermost texels' centres their colour goes on.

    Only the points asked for are read: ``grid_sample`` over whole crops costs three times as much, most of it background.
    """
    _, channels, height, width = texture.shape
    column = (uv[:, 0] * width - 0.5).clamp(0, width - 1)
    row = (uv[:, 1] * height - 0.5).clamp(0, height - 1)
    left = column.detach().floor().clamp_max(max(width - 2, 0))
    top = row.detach().floor().clamp_max(max(height - 2, 0))
    across, down = (column - left)[:, None], (row - top)[:, None]
    first = (owner * height + top.long()) * width + left.long()
    right, below = (
        int(width > 1),
        width * int(height > 1),
    )  # steps to the neighbours; a single texel is its own
    texels = texture.permute(0, 2, 3, 1).reshape(-1, channels)

    def at(step: int) -> Tensor:
        return texels.index_select(0, first + step)

    upper = torch.lerp(at(0), at(right), across.expand(-1, channels))
    lower = torch.lerp(at(below), at(below + right), across.expand(-1, channels))
    return torch.lerp(upper, lower, down.expand(-1, channels))
