"""Starts `monolift.nn.csp.CSPNano` from the published YOLOX-nano weights (an ONNX file, Apache-2.0)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from monolift.errors import InputError, MissingExtraError
from monolift.nn.pretrained import LoadReport
from monolift.typing import Float, Tensor

# ImageNet statistics of RGB in [0, 1], which every backbone here is fed with; YOLOX was trained on BGR in [0, 255]
OURS = ("project", "mix8", "detail", "mix4")  # the way up to stride 4, which YOLOX has not
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_yolox(
    model: nn.Module, path: str | Path, images: Callable[[], Float[Tensor, "b 3 H W"]]
) -> LoadReport:
    """Fills backbone, pyramid and towers of a CSPNano from ``yolox_nano.onnx``; returns what was filled.

    The file has its batch norms folded into the convolutions. Training goes better with them, so they are put back: each
    norm gets the statistics of its own input on ``images`` (normalised, a dozen of the training set) and the scale and shift
    that undo them, and the network computes what the file computes.

    Raises:
        InputError: where the file is not a YOLOX-nano.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingExtraError("reading YOLOX weights", "onnx") from error
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:
        raise InputError(f"{path}: not a readable ONNX file ({error})") from error
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    # all but the last layers, whose weights alone kept their names when the norms were folded in
    source = [
        (arrays[n.input[1]], arrays[n.input[2]])
        for n in graph.node
        if n.op_type == "Conv" and "_preds." not in n.input[1]
    ]
    pairs = _conv_norm_pairs(model)
    if len(source) != len(pairs):
        raise InputError(f"{path}: expected a YOLOX-nano with {len(pairs)} convolutions, got {len(source)}")
    source[0] = _stem_from_focus(*source[0])
    for k, ((conv, norm), (weight, bias)) in enumerate(zip(pairs, source, strict=True)):
        if tuple(conv.weight.shape) != weight.shape:
            raise InputError(
                f"{path}: convolution {k} should have shape {tuple(conv.weight.shape)}, got {weight.shape}: not a YOLOX-nano"
            )
        conv.weight.data.copy_(torch.tensor(np.ascontiguousarray(weight)))
        norm.bias.data.copy_(torch.tensor(bias))
    _restore_norms(model, [norm for _, norm in pairs], images())
    filled = tuple(name for name in model.state_dict() if not name.startswith(OURS))
    return LoadReport(Path(path), "released", filled, ())


def _conv_norm_pairs(model: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolution and norm in running order, our own stride-4 tail excepted."""
    layers = [m for name, m in model.named_modules() if not name.startswith(OURS)]
    convs = [m for m in layers if isinstance(m, nn.Conv2d)]
    norms = [m for m in layers if isinstance(m, nn.BatchNorm2d)]
    return list(zip(convs, norms, strict=True))


def _stem_from_focus(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(16, 12, 3, 3) on gathered pixels of BGR 0..255 -> (16, 3, 6, 6) on normalised RGB.

    Gathered order: (even row, even column), (odd, even), (even, odd), (odd, odd), three colours each.
    """
    full = np.zeros((weight.shape[0], 3, 6, 6), np.float32)
    for k, (dy, dx) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        full[:, :, dy::2, dx::2] = weight[:, 3 * k : 3 * k + 3]
    full = full[:, ::-1] * 255
    mean, std = (np.array(v, np.float32)[None, :, None, None] for v in (RGB_MEAN, RGB_STD))
    return full * std, bias + (full * mean).sum((1, 2, 3))


@torch.no_grad()
def _restore_norms(model: nn.Module, norms: list[nn.BatchNorm2d], images: Tensor) -> None:
    """One forward pass in which each norm, as its turn comes, learns its statistics and is made the identity plus bias."""

    def calibrate(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        var, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
        norm.weight.copy_(torch.sqrt(var + norm.eps))
        norm.bias.add_(mean)

    training = model.training
    model.eval()
    handles = [norm.register_forward_pre_hook(calibrate) for norm in norms]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
