"""LPIPS (Zhang et al., CVPR 2018), the metric the paper decides between rotations by: AlexNet's features, weighted.

The weights are not shipped. `load_lpips` reads one file with both parts: torchvision's AlexNet (``features.*``) and the
published linear weights (``lin0.model.1.weight`` ...), as ``.safetensors`` or as a ``.pth`` of plain tensors.
"""

from __future__ import annotations

import pickle
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from monolift.errors import InputError
from monolift.typing import Float, Tensor

# AlexNet's convolutions: place among torchvision's ``features``, in, out, kernel, stride, padding; a pool stands before some
_CONVOLUTIONS = (
    (0, 3, 64, 11, 4, 2),
    (3, 64, 192, 5, 1, 2),
    (6, 192, 384, 3, 1, 1),
    (8, 384, 256, 3, 1, 1),
    (10, 256, 256, 3, 1, 1),
)
_POOLED = (3, 6)
# The published scaling of images in [-1, 1]
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """Features of images, scaled so that LPIPS is the squared distance of two images' features, mean over places."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {str(k): nn.Conv2d(i, o, size, stride, pad) for k, i, o, size, stride, pad in _CONVOLUTIONS}
        )
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(o)) for _, _, o, *_ in _CONVOLUTIONS])

    def forward(self, images: Float[Tensor, "n 3 s s"]) -> list[Float[Tensor, "n c _ _"]]:
        """Five levels of features of images in [0, 1]."""
        shift, scale = (images.new_tensor(v)[:, None, None] for v in (_SHIFT, _SCALE))
        x = (2 * images - 1 - shift) / scale
        levels = []
        for (k, *_), weight in zip(_CONVOLUTIONS, self.weights, strict=True):
            if k in _POOLED:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(self.features[str(k)](x))
            unit = x / (x.norm(dim=1, keepdim=True) + 1e-10)
            levels.append(unit * weight.clamp_min(0).sqrt()[:, None, None])
        return levels


class LpipsMetric:
    """LPIPS between renderings and the observed images, the background masked out of both."""

    def __init__(
        self, network: Lpips, colour: Float[Tensor, "n 3 s s"], foreground: Float[Tensor, "n s s"]
    ) -> None:
        self.network, self.foreground = network, foreground[:, None]
        self.observed = network(colour * self.foreground)

    def __call__(
        self, colour: Float[Tensor, "n 3 s s"], silhouette: Float[Tensor, "n s s"]
    ) -> Float[Tensor, " n"]:
        levels = zip(self.network(colour * self.foreground), self.observed, strict=True)
        return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in levels]).sum(0)


@lru_cache(maxsize=1)
def load_lpips(path: str | Path) -> Lpips:
    """The network from a weights file. Raises InputError where the file is missing, unreadable or lacks a weight."""
    path = Path(path)
    read = load_file if path.suffix == ".safetensors" else _tensors
    try:
        entries = read(path)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError) as error:
        raise InputError(f"{path}: expected LPIPS weights, got: {str(error).splitlines()[0]}") from None
    network, state = Lpips(), {}
    for name, parameter in network.state_dict().items():
        theirs = f"lin{name.split('.')[1]}.model.1.weight" if name.startswith("weights") else name
        if theirs not in entries or entries[theirs].numel() != parameter.numel():
            raise InputError(
                f"{path}: expected {theirs} with {parameter.numel()} numbers, as in LPIPS for AlexNet"
            )
        state[name] = entries[theirs].view(parameter.shape).float()
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pth``; nothing in it is run."""
    entries: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return entries
