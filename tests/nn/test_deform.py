"""Deformable convolution against a loop over its definition, finite differences, and ONNX Runtime's own operator."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from monolift.nn.deform import DeformConv2d, deform_conv2d, deform_conv2d_reference


class Case(NamedTuple):
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    image: tuple[int, int] = (5, 6)
    masked: bool = True
    biased: bool = True
    batch: int = 2
    spread: float = 1.5  # standard deviation of the offsets, pixels

    def inputs(self, seed: int = 0) -> tuple[list[Tensor | None], dict[str, tuple[int, int]]]:
        """(x, offset, weight, bias, mask) in float64, and the keywords."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        taps, channels, out_channels = math.prod(self.kernel), 4, 3
        out = [
            (size + 2 * p - d * (k - 1) - 1) // s + 1
            for size, k, s, p, d in zip(
                self.image, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        ]
        x = normal(self.batch, channels, *self.image)
        offset = self.spread * normal(self.batch, 2 * self.groups * taps, *out)
        weight = normal(out_channels, channels, *self.kernel)
        bias = normal(out_channels) if self.biased else None
        mask = normal(self.batch, self.groups * taps, *out).sigmoid() if self.masked else None
        return [x, offset, weight, bias, mask], {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
        }


CASES = {
    "3x3": Case(),
    "groups": Case(groups=2),
    "stride": Case(stride=(2, 1), groups=4),
    "dilation": Case(dilation=(2, 1), padding=(2, 0)),
    "no padding": Case(padding=(0, 0)),
    "1x3 kernel": Case(kernel=(1, 3), padding=(0, 1), groups=2),
    "1x1 kernel": Case(kernel=(1, 1), padding=(0, 0)),
    "wide offsets": Case(spread=6.0),
    "no mask": Case(masked=False, groups=2),
    "no bias": Case(biased=False),
    "neither": Case(masked=False, biased=False),
    "one pixel": Case(image=(1, 1), batch=1),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def pixel(plane: Tensor, row: int, column: int) -> float:
    inside = 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]
    return float(plane[row, column]) if inside else 0.0


def bilinear(plane: Tensor, y: float, x: float) -> float:
    """DCNv2's sampling rule: nothing from one pixel outside on; missing neighbours are zero."""
    if y <= -1 or x <= -1 or y >= plane.shape[0] or x >= plane.shape[1]:
        return 0.0
    top, left = math.floor(y), math.floor(x)
    fy, fx = y - top, x - left
    return (
        (1 - fy) * (1 - fx) * pixel(plane, top, left)
        + (1 - fy) * fx * pixel(plane, top, left + 1)
        + fy * (1 - fx) * pixel(plane, top + 1, left)
        + fy * fx * pixel(plane, top + 1, left + 1)
    )


def loop_oracle(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None,
    *, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int],
) -> Tensor:  # fmt: skip
    """The definition, one multiplication at a time."""
    out_channels, channels, kernel_h, kernel_w = weight.shape
    taps = kernel_h * kernel_w
    groups = offset.shape[1] // (2 * taps)
    out = torch.zeros(x.shape[0], out_channels, *offset.shape[2:], dtype=x.dtype)
    for b in range(out.shape[0]):
        for oy in range(out.shape[2]):
            for ox in range(out.shape[3]):
                for c in range(channels):
                    group = c // (channels // groups)
                    for tap in range(taps):
                        at = group * taps + tap
                        y = oy * stride[0] - padding[0] + tap // kernel_w * dilation[0]
                        u = ox * stride[1] - padding[1] + tap % kernel_w * dilation[1]
                        y += float(offset[b, 2 * at, oy, ox])
                        u += float(offset[b, 2 * at + 1, oy, ox])
                        sample = bilinear(x[b, c], y, u)
                        factor = 1.0 if mask is None else float(mask[b, at, oy, ox])
                        out[b, :, oy, ox] += weight[:, c, tap // kernel_w, tap % kernel_w] * factor * sample
    return out if bias is None else out + bias.view(1, -1, 1, 1)


@every_case
def test_both_formulations_equal_the_loop_over_the_definition(case: Case) -> None:
    tensors, keywords = case.inputs()
    expected = loop_oracle(*tensors, **keywords)
    for convolution in (deform_conv2d, deform_conv2d_reference):
        torch.testing.assert_close(convolution(*tensors, **keywords), expected, rtol=0, atol=1e-10)


@every_case
def test_all_gradients_equal_those_of_grid_sample(case: Case) -> None:
    tensors, keywords = case._replace(image=(max(1, case.image[0] - 1) * 2 - 1, case.image[1])).inputs(seed=1)
    leaves = [tensor.requires_grad_() for tensor in tensors if tensor is not None]
    reference = deform_conv2d_reference(*tensors, **keywords)
    direction = torch.linspace(-1, 1, reference.numel(), dtype=torch.float64).view_as(reference)
    expected = torch.autograd.grad(reference, leaves, direction)
    actual = torch.autograd.grad(deform_conv2d(*tensors, **keywords), leaves, direction)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "case",
    [
        Case(image=(2, 3), batch=1),
        Case(image=(4, 3), batch=1, kernel=(3, 1), padding=(1, 0), stride=(2, 2), groups=2),
    ],
)
def test_gradients_equal_finite_differences(case: Case) -> None:
    tensors, keywords = case.inputs(seed=2)
    # Bilinear sampling has a kink where a position is an integer: keep the fractions between 0.2 and 0.8.
    assert tensors[1] is not None
    tensors[1] = tensors[1].floor() + 0.2 + 0.6 * (tensors[1] - tensors[1].floor())
    leaves = [tensor.requires_grad_() for tensor in tensors if tensor is not None]
    assert torch.autograd.gradcheck(lambda *inputs: deform_conv2d(*inputs, **keywords), leaves)


def test_only_the_gradients_that_are_asked_for() -> None:
    """Each input alone: what the backward pass skips must not change what it computes."""
    tensors, keywords = Case(groups=2).inputs(seed=3)
    everything = [tensor.clone().requires_grad_() for tensor in tensors]
    deform_conv2d(*everything, **keywords).square().sum().backward()
    for i, tensor in enumerate(tensors):
        inputs = list(tensors)
        inputs[i] = tensor.clone().requires_grad_()
        deform_conv2d(*inputs, **keywords).square().sum().backward()
        torch.testing.assert_close(inputs[i].grad, everything[i].grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride, padding, dilation", [(1, 1, 1), (2, 0, 1), ((1, 2), (2, 1), (2, 1))])
def test_without_offset_and_mask_it_is_a_convolution(stride, padding, dilation) -> None:
    (x, _, weight, bias, _), _ = Case(image=(9, 8)).inputs()
    expected = F.conv2d(x, weight, bias, stride, padding, dilation)
    offset = torch.zeros(x.shape[0], 18, *expected.shape[2:], dtype=x.dtype)
    actual = deform_conv2d(x, offset, weight, bias, stride=stride, padding=padding, dilation=dilation)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_whole_offsets_shift_the_image() -> None:
    """An offset of (dy, dx) at every tap is a convolution of the image moved up by dy and left by dx."""
    (x, _, weight, bias, _), _ = Case().inputs()
    dy, dx = -2, 3
    wide = F.pad(x, (4, 4, 4, 4))  # a black frame wider than the shift: what roll wraps round is black
    offset = torch.tensor([dy, dx], dtype=x.dtype).repeat(9).view(1, 18, 1, 1).expand(2, 18, *wide.shape[2:])
    expected = F.conv2d(wide.roll((-dy, -dx), (2, 3)), weight, bias, padding=1)
    torch.testing.assert_close(
        deform_conv2d(wide, offset, weight, bias, padding=1), expected, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("far", [50.0, -50.0, 1e9, -1e30, math.inf])
@pytest.mark.parametrize("convolution", [deform_conv2d, deform_conv2d_reference])
def test_far_outside_there_is_only_the_bias_and_no_gradient(convolution, far: float) -> None:
    (x, offset, weight, bias, mask), keywords = Case().inputs()
    x, offset = x.requires_grad_(), torch.full_like(offset, far).requires_grad_()
    out = convolution(x, offset, weight, bias, mask, **keywords)
    torch.testing.assert_close(out, bias.view(1, -1, 1, 1).expand_as(out), rtol=0, atol=0)
    out.sum().backward()
    assert not x.grad.any() and not offset.grad.any()


def test_a_nan_offset_spoils_its_own_pixel_and_nothing_else() -> None:
    (x, offset, weight, bias, mask), keywords = Case().inputs()
    clean = deform_conv2d(x, offset, weight, bias, mask, **keywords)
    offset[1, 5, 2, 3] = math.nan
    out = deform_conv2d(x, offset, weight, bias, mask, **keywords)
    spoilt = torch.zeros(2, 5, 6, dtype=torch.bool)
    spoilt[1, 2, 3] = True
    assert out.isnan().all(dim=1).equal(spoilt)
    assert out[~out.isnan()].equal(clean[~out.isnan()])


def test_memory_formats_agree() -> None:
    tensors, keywords = Case(groups=2).inputs()
    expected = deform_conv2d(*tensors, **keywords)
    x, offset, weight, bias, mask = tensors
    last = torch.channels_last
    arranged = (
        x.contiguous(memory_format=last), offset.contiguous(memory_format=last), weight.contiguous(memory_format=last),
        bias, mask.contiguous(memory_format=last),
    )  # fmt: skip
    sliced = tuple(torch.stack([tensor, tensor + 1], dim=-1)[..., 0] for tensor in tensors)
    for inputs in (arranged, sliced):
        torch.testing.assert_close(deform_conv2d(*inputs, **keywords), expected, rtol=0, atol=1e-12)


def test_an_empty_batch_gives_an_empty_map_and_zero_gradients() -> None:
    tensors, keywords = Case(batch=0).inputs()
    leaves = [tensor.requires_grad_() for tensor in tensors]
    out = deform_conv2d(*tensors, **keywords)
    assert out.shape == (0, 3, 5, 6)
    gradients = torch.autograd.grad(out.sum(), leaves)
    assert [g.shape for g in gradients] == [leaf.shape for leaf in leaves]
    assert not any(g.any() for g in gradients)


def test_autocast_computes_in_float32_and_rounds_once() -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(4, 3)
    torch.nn.init.normal_(layer.conv_offset_mask.weight, std=0.1)
    x = torch.randn(2, 4, 6, 7, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
        out.float().square().sum().backward()
        offset_mask = layer.conv_offset_mask(x)
    assert out.dtype == torch.bfloat16
    single = offset_mask.float()
    mask = offset_mask[:, 18:].sigmoid().float()
    expected = deform_conv2d_reference(x.float(), single[:, :18], layer.weight, layer.bias, mask, padding=1)
    torch.testing.assert_close(out.float(), expected, rtol=2**-7, atol=2**-8)
    for leaf in (x, *layer.parameters()):
        assert leaf.grad is not None and leaf.grad.isfinite().all() and leaf.grad.any()


def test_the_layer_starts_as_half_a_convolution() -> None:
    torch.manual_seed(1)
    layer = DeformConv2d(4, 6, stride=2)
    x = torch.randn(1, 4, 8, 10)
    torch.testing.assert_close(layer(x), 0.5 * F.conv2d(x, layer.weight, stride=2, padding=1))
    bound = 1 / math.sqrt(4 * 9)
    assert 0.9 * bound < layer.weight.abs().max() <= bound
    assert layer.bias is not None and not layer.bias.any()


def test_the_layer_reads_its_channels_in_the_published_order() -> None:
    """First every tap's (dy, dx), then every tap's mask, which passes through a sigmoid."""
    layer = DeformConv2d(2, 2).double()
    offsets = torch.arange(18, dtype=torch.float64) / 7
    masks = torch.arange(9, dtype=torch.float64) - 4
    state = {"conv_offset_mask.bias": torch.cat([offsets, masks])}
    layer.load_state_dict(state, strict=False)
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    expected = loop_oracle(
        x, offsets.view(1, 18, 1, 1).expand(1, 18, 5, 5), layer.weight.detach(), layer.bias,
        masks.sigmoid().view(1, 9, 1, 1).expand(1, 9, 5, 5), stride=(1, 1), padding=(1, 1), dilation=(1, 1),
    )  # fmt: skip
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)


def test_shapes_that_disagree_are_named() -> None:
    (x, offset, weight, bias, mask), keywords = Case().inputs()
    with pytest.raises(ValueError, match=r"offset should be \(2, 18, 5, 6\).*got \(2, 17, 5, 6\)"):
        deform_conv2d(x, offset[:, :17], weight, bias, mask, **keywords)
    with pytest.raises(ValueError, match=r"mask should be \(2, 9, 5, 6\).*got \(2, 8, 5, 6\)"):
        deform_conv2d(x, offset, weight, bias, mask[:, :8], **keywords)
    with pytest.raises(ValueError, match=r"x has 4 channels.* divides them into 3 groups"):
        deform_conv2d(x, offset.repeat(1, 3, 1, 1), weight, bias, mask, **keywords)


@pytest.mark.parametrize("name", ["3x3", "groups", "stride", "dilation", "wide offsets"])
def test_equals_the_operator_of_onnx_runtime(name: str) -> None:
    """An implementation by others, of the standard's text."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    case = CASES[name]
    tensors, keywords = case.inputs()
    feed = {key: tensor.float().numpy() for key, tensor in zip("XOWBM", tensors, strict=True)}
    attributes = {
        "kernel_shape": case.kernel,
        "strides": case.stride,
        "pads": case.padding * 2,
        "dilations": case.dilation,
        "offset_group": case.groups,
    }
    node = onnx.helper.make_node("DeformConv", ["X", "W", "O", "B", "M"], ["Y"], **attributes)
    declare = onnx.helper.make_tensor_value_info
    inputs = [declare(key, onnx.TensorProto.FLOAT, value.shape) for key, value in feed.items()]
    graph = onnx.helper.make_graph([node], "one", inputs, [declare("Y", onnx.TensorProto.FLOAT, [None] * 4)])
    opsets = [onnx.helper.make_opsetid("", 19)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
    (expected,) = runtime.InferenceSession(model.SerializeToString()).run(None, feed)
    actual = deform_conv2d(*(tensor.float() for tensor in tensors), **keywords)
    torch.testing.assert_close(actual, torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


def test_exports_to_onnx_as_one_standard_node(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(2)
    layer = DeformConv2d(4, 6, offset_groups=2, bias=False).eval()
    torch.nn.init.normal_(layer.conv_offset_mask.weight, std=0.3)
    path = tmp_path / "layer.onnx"
    sides = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            layer, (torch.randn(2, 4, 8, 10),), path, dynamo=True, opset_version=20, dynamic_shapes={"x": sides},
            verbose=False,
        )  # fmt: skip
    assert [node.op_type for node in onnx.load(path).graph.node].count("DeformConv") == 1
    session = runtime.InferenceSession(path)
    for shape in ((2, 4, 8, 10), (3, 4, 11, 5)):  # the exported and another batch and size
        x = torch.randn(shape)
        (out,) = session.run(None, {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(out), layer(x).detach(), rtol=0, atol=1e-4)


def test_other_tracing_gets_ordinary_operators() -> None:
    torch.manual_seed(3)
    layer = DeformConv2d(4, 2).eval()
    torch.nn.init.normal_(layer.conv_offset_mask.weight, std=0.3)
    x = torch.randn(1, 4, 6, 7)
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x), layer(x), rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_case
def test_cuda_equals_cpu(case: Case) -> None:
    tensors, keywords = case.inputs()
    gradients, outputs = [], []
    for device in ("cpu", "cuda"):
        leaves = [None if t is None else t.detach().to(device).requires_grad_() for t in tensors]
        out = deform_conv2d(*leaves, **keywords)
        out.square().sum().backward()
        outputs.append(out.detach().cpu())
        gradients.append([leaf.grad.cpu() for leaf in leaves if leaf is not None])
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-9)
