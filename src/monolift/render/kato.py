"""The approximate gradient of Kato et al. for hard-edged images.

Kato, Ushiku, Harada, "Neural 3D Mesh Renderer", CVPR 2018, section 3: an image is drawn with hard edges, and backwards a
pixel's surface moves as its neighbour's colour would change the loss. This is the rule in the form of
their later renderer (Kato, Harada, "Learning View Priors for Single-view 3D Reconstruction", CVPR 2019, in its public code),
which MonoDR's authors share: only the two nearest pixels along each axis are compared. Deviations: in the 2018 paper every
pixel of a row pulls at an edge, with a force that falls with its distance; and the released code calls it a tie where the two
gains differ by less than 1e-4 in coordinates from -1 to 1, this one at 1e-9 per pixel, so that a loss averaged over many pixels
keeps its direction.

Between two neighbours, p and p + 1 along an axis, with colours I and incoming gradients G:

    moving right, p + 1 would get p's colour: the loss changes by (I_p - I_{p+1}) . G_{p+1}
    moving left,  p would get p + 1's colour: the loss changes by (I_{p+1} - I_p) . G_p

Each pixel adds up both over its two neighbours and keeps the direction that lowers the loss more; neither, and it has none.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from monolift.typing import Float, Int, Tensor

_TIE = 1e-9  # gains closer than this give no direction


def attach_kato_gradient(
    image: Float[Tensor, "b h w c"],
    screen: Float[Tensor, "b v 3"],
    faces: Int[Tensor, "f 3"],
    face: Int[Tensor, "b h w"],
) -> Float[Tensor, "b h w c"]:
    """``image`` unchanged; backwards, each covered pixel also pulls at the corners of the face it sees, in the proportion of
    its barycentric coordinates on the screen."""
    position = _positions(screen, faces, face)
    attached: Tensor = _KatoGradient.apply(image, position)
    return attached


def _positions(screen: Tensor, faces: Tensor, face: Tensor) -> Tensor:
    """(B, H, W, 2) each covered pixel's own column and row, as a function of the corners of its face; 0 elsewhere."""
    objects, row, column = (face >= 0).nonzero(as_tuple=True)
    vertex = faces[face[objects, row, column]] + objects[:, None] * screen.shape[1]
    corners = screen.reshape(-1, 3).index_select(0, vertex.reshape(-1)).view(-1, 3, 3)[..., :2]
    with torch.no_grad():
        a, b, c = (corners - torch.stack([column, row], 1)[:, None]).unbind(1)
        areas = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1)
        weights = areas / areas.sum(1, keepdim=True)
    position = (weights[..., None] * corners).sum(1)
    return screen.new_zeros(*face.shape, 2).index_put((objects, row, column), position)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]


class _KatoGradient(torch.autograd.Function):
    """Identity in the image; the gradient of the positions is the rule."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, position: Tensor) -> Tensor:
        ctx.save_for_backward(image)
        return image.view_as(image)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (image,) = ctx.saved_tensors
        return grad, torch.stack([_pull(image, grad, axis) for axis in (2, 1)], -1)


def _pull(image: Tensor, grad: Tensor, axis: int) -> Tensor:
    """(B, H, W) derivative of the loss with respect to a pixel's place along an axis (1: rows, 2: columns)."""
    pairs = image.shape[axis] - 1
    if pairs < 1:
        return torch.zeros_like(image[..., 0])
    before, after = image.narrow(axis, 0, pairs), image.narrow(axis, 1, pairs)
    step = before - after
    gain_forward = -(step * grad.narrow(axis, 1, pairs)).sum(-1)
    gain_back = (step * grad.narrow(axis, 0, pairs)).sum(-1)
    forward, back = _both_sides(gain_forward, axis), _both_sides(gain_back, axis)
    moves = (torch.maximum(forward, back) > 0) & ((forward - back).abs() > _TIE)
    return torch.where(moves, torch.where(forward > back, -forward, back), 0)


def _both_sides(pairs: Tensor, axis: int) -> Tensor:
    """Sum over the pairs that a pixel is part of."""
    left = F.pad(pairs, (0, 0, 0, 1) if axis == 1 else (0, 1))
    right = F.pad(pairs, (0, 0, 1, 0) if axis == 1 else (1, 0))
    return left + right
