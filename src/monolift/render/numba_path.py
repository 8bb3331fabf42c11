"""The renderer as fused CPU kernels (``numba_kernels``), as one differentiable operation of torch.

Objects are shared among as many Python threads as torch may use; the kernels release the interpreter. (numba's own
``parallel=True`` may abort the process when two Python threads enter it at once, and takes longer to compile.) Importing this
module raises ImportError without numba. Compiled code is kept on disk beside the sources, or where NUMBA_CACHE_DIR says.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.autograd.function import once_differentiable

from monolift.render.mesh import Mesh
from monolift.render.numba_kernels import backward, forward
from monolift.typing import Float, Int, Tensor

Array = npt.NDArray[Any]


def render(
    mesh: Mesh, screen: Float[Tensor, "b v 3"], height: int, width: int, smooth: bool
) -> tuple[Float[Tensor, "b h w channels"], Float[Tensor, "b h w"], Int[Tensor, "b h w"]]:
    """Image (the texture's channels and coverage), depth and face of each pixel, of float32 tensors on the CPU.

    Args:
        smooth: whether silhouettes are antialiased, and so differentiable.
    """
    objects, faces = len(screen), mesh.faces
    if mesh.texture is None or mesh.uvs is None:
        texture, uvs = screen.new_zeros(objects, 0, 1, 1), screen.new_zeros(len(faces), 3, 2)
    else:
        texture, uvs = mesh.texture.expand(objects, *mesh.texture.shape[-3:]), mesh.uvs.to(torch.float32)
    image, depth, face = _Render.apply(
        screen, texture, faces, uvs, mesh.edges if smooth else None, height, width
    )
    return image, depth, face


class _Render(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        screen: Tensor,
        texture: Tensor,
        faces: Tensor,
        uvs: Tensor,
        edges: Any,
        height: int,
        width: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        screen, texture = screen.contiguous(), texture.contiguous()
        objects, channels = len(screen), texture.shape[1] + 1
        none = faces.new_zeros(0, 2)
        edge_arrays = tuple(_array(t) for t in edges or (none, none, none))
        face = np.empty((objects, height, width), np.int64)
        depth = np.empty((objects, height, width), np.float32)
        colour = np.empty((objects, height, width, channels), np.float32)
        image = np.empty_like(colour)
        cut_edge = np.full((objects, height, width, 2), -1, np.int32)
        cut_offset = np.empty((objects, height, width, 2), np.float32)
        topology = (_array(faces), _array(uvs), *edge_arrays)
        outputs = (face, depth, colour, image, cut_edge, cut_offset)
        _share(forward, objects, (_array(screen), _array(texture), *topology, *outputs))
        ctx.save_for_backward(screen, texture)
        ctx.arrays = (topology[0], topology[1], topology[2], face, depth, colour, cut_edge, cut_offset)
        outcome = torch.from_numpy(image), torch.from_numpy(depth), torch.from_numpy(face)
        ctx.mark_non_differentiable(outcome[2])
        return outcome

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_image: Tensor, grad_depth: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        screen, texture = ctx.saved_tensors
        grad_screen, grad_texture = torch.zeros_like(screen), torch.zeros_like(texture)
        grad_colour = grad_image.contiguous().clone()
        incoming = (grad_image.contiguous(), grad_depth.contiguous(), grad_colour)
        arrays = (screen, texture, *incoming, grad_screen, grad_texture)
        _share(backward, len(screen), (*(_array(t) for t in arrays), *ctx.arrays))
        return grad_screen, grad_texture, None, None, None, None, None


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().contiguous().numpy()
    return array


# --- threads


def _share(kernel: Callable[..., None], objects: int, arrays: tuple[Array, ...]) -> None:
    """``kernel(first, last, *arrays)`` over all objects, in as many threads as torch may use."""
    threads = min(torch.get_num_threads(), objects)
    if threads <= 1:
        kernel(0, objects, *arrays)
        return
    bounds = [objects * k // threads for k in range(threads + 1)]
    pool = _pool(os.getpid(), threads)
    jobs = [pool.submit(kernel, first, last, *arrays) for first, last in itertools.pairwise(bounds)]
    for job in jobs:
        job.result()


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """One pool per process: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="render")
