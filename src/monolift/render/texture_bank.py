"""Many small textures in one array, so that every sample of an image is looked up in one call.

Each texture is kept as a pyramid of halved copies; a face that is seen from afar is given a coarser copy, or its
texels would flicker between samples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]


class TextureBank:
    """Textures (h, w, C), h and w powers of two, all with the same C. They repeat beyond [0, 1)."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self._texels: list[npt.NDArray[np.float32]] = []
        self._tables: list[npt.NDArray[np.int64]] = []
        self._rows = 0
        self._joined: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self._tables)

    def add(self, texture: FloatArray) -> int:
        """Store a texture and its halvings; returns its number. Raises ValueError for a shape that cannot be halved."""
        height, width, channels = texture.shape
        if height & (height - 1) or width & (width - 1) or channels != self.channels:
            expected = f"powers of two by {self.channels} channels"
            raise ValueError(f"texture: expected {expected}, got {texture.shape}")
        self._joined = None
        level, table = np.asarray(texture, np.float32), []
        while True:
            table.append((self._rows, level.shape[0], level.shape[1]))
            self._texels.append(level.reshape(-1, channels))
            self._rows += level.shape[0] * level.shape[1]
            if level.shape[0] == 1 and level.shape[1] == 1:
                break
            if level.shape[0] > 1:
                level = (level[0::2] + level[1::2]) * np.float32(0.5)
            if level.shape[1] > 1:
                level = (level[:, 0::2] + level[:, 1::2]) * np.float32(0.5)
        self._tables.append(np.array(table))
        return len(self._tables) - 1

    def levels(self, texture: IntArray, uv: FloatArray, pixels: FloatArray) -> IntArray:
        """(F, 3) where each face finds its texels: (first row, height, width) of the copy whose texels are about
        as large as its samples.

        texture (F,) numbers, uv (F, 3, 2), pixels (F, 3, 2). A face wide in depth gets one copy for all of it:
        cut long faces into short ones.
        """
        size = np.array([t[0, 1:] for t in self._tables])
        finest = size[texture][:, ::-1][:, None]  # as (u, v) = (width, height)
        texels = _twice_area(uv * finest)
        samples = np.maximum(_twice_area(pixels), 1e-9)
        wanted = np.round(0.5 * np.log2(np.maximum(texels / samples, 1e-9)) + 0.25)
        depth = np.array([len(t) for t in self._tables])
        level = np.clip(wanted, 0, depth[texture] - 1).astype(np.int64)
        start = np.cumsum(depth) - depth
        return np.concatenate(self._tables)[start[texture] + level]

    def look_up(self, level: IntArray, uv: FloatArray) -> npt.NDArray[np.float32]:
        """(N, C) bilinear values at uv (N, 2) in the copies `level` (N, 3) of `levels`; u runs along the width."""
        if self._joined is None:
            self._joined = np.concatenate(self._texels)
        texels = self._joined
        first, height, width = level.T
        x = uv[:, 0] * width - 0.5
        y = uv[:, 1] * height - 0.5
        left, top = np.floor(x), np.floor(y)
        share_x, share_y = (x - left).astype(np.float32)[:, None], (y - top).astype(np.float32)[:, None]
        left, top = left.astype(np.int64), top.astype(np.int64)
        # Sizes are powers of two, so wrapping is a bit mask (also for negative numbers).
        columns = (left & (width - 1), (left + 1) & (width - 1))
        rows = (first + (top & (height - 1)) * width, first + ((top + 1) & (height - 1)) * width)
        upper, lower = (
            _blend(texels.take(row + columns[0], 0), texels.take(row + columns[1], 0), share_x)
            for row in rows
        )
        return _blend(upper, lower, share_y)


def _blend(one: FloatArray, two: FloatArray, share: FloatArray) -> FloatArray:
    """one (1 - share) + two share, in place of `two`."""
    two -= one
    two *= share
    two += one
    return two


def _twice_area(points: FloatArray) -> FloatArray:
    one, two = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    return np.abs(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])
