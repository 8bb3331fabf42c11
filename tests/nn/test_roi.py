"""RoIAlign and NMS against loops over their definitions, and RoIAlign against ONNX Runtime's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from monolift.nn.gather import gather_rows, scatter_rows
from monolift.nn.roi import batched_nms, beaten_by_rival, box_iou, nms, roi_align
from monolift.runtime import lens


def sample(plane: Tensor, y: float, x: float) -> float:
    """torchvision's rule: nothing beyond one cell outside; within that cell, the border's value."""
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, x - left
    upper = (1 - fx) * float(plane[top, left]) + fx * float(plane[top, right])
    lower = (1 - fx) * float(plane[bottom, left]) + fx * float(plane[bottom, right])
    return (1 - fy) * upper + fy * lower


def loop_roi_align(
    features: Tensor,
    boxes: Tensor,
    image_index: Tensor,
    size: tuple[int, int],
    scale: float,
    ratio: int,
    aligned: bool,
) -> Tensor:
    out = torch.zeros(len(boxes), features.shape[1], *size, dtype=features.dtype)
    for n, box in enumerate(boxes.tolist()):
        left, top, right, bottom = (edge * scale - (0.5 if aligned else 0.0) for edge in box)
        width, height = right - left, bottom - top
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        cell_h, cell_w = height / size[0], width / size[1]
        for c in range(features.shape[1]):
            plane = features[int(image_index[n]), c]
            for i in range(size[0]):
                for j in range(size[1]):
                    values = [
                        sample(
                            plane,
                            top + (i + (a + 0.5) / ratio) * cell_h,
                            left + (j + (b + 0.5) / ratio) * cell_w,
                        )
                        for a in range(ratio)
                        for b in range(ratio)
                    ]
                    out[n, c, i, j] = sum(values) / ratio**2
    return out


BOXES = torch.tensor(
    [
        [8.0, 4.0, 30.0, 20.0],
        [0.0, 0.0, 40.0, 28.0],  # the whole image
        [-13.0, -9.0, 20.0, 17.0],  # over the corner
        [25.0, 15.0, 61.0, 47.0],  # over the other corner
        [100.0, 100.0, 120.0, 110.0],  # outside
        [12.0, 9.0, 12.0, 9.0],  # a point
        [-4.0, -4.0, 44.0, 32.0],  # samples in the cell just outside the map
    ],
    dtype=torch.float64,
)
IMAGES = torch.tensor([0, 1, 1, 0, 1, 0, 1])


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("size, ratio", [((2, 3), 2), ((7, 7), 1), ((1, 1), 3)])
def test_equals_the_loop_over_the_definition(aligned: bool, size: tuple[int, int], ratio: int) -> None:
    features = torch.randn(2, 3, 7, 10, dtype=torch.float64)
    expected = loop_roi_align(features, BOXES, IMAGES, size, 0.25, ratio, aligned)
    for arranged in (features, features.contiguous(memory_format=torch.channels_last)):
        actual = roi_align(
            arranged, BOXES, IMAGES, size, spatial_scale=0.25, sampling_ratio=ratio, aligned=aligned
        )
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("aligned", [True, False])
def test_equals_the_operator_of_onnx_runtime(aligned: bool) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    features = torch.randn(2, 3, 7, 10)
    feed = {"X": features.numpy(), "R": BOXES.float().numpy(), "B": IMAGES.numpy()}
    mode = "half_pixel" if aligned else "output_half_pixel"
    node = onnx.helper.make_node(
        "RoiAlign", ["X", "R", "B"], ["Y"], mode="avg", output_height=3, output_width=4, sampling_ratio=2,
        spatial_scale=0.25, coordinate_transformation_mode=mode,
    )  # fmt: skip
    declare, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
    inputs = [
        declare(key, kinds.INT64 if key == "B" else kinds.FLOAT, value.shape) for key, value in feed.items()
    ]
    graph = onnx.helper.make_graph([node], "one", inputs, [declare("Y", kinds.FLOAT, [None] * 4)])
    opsets = [onnx.helper.make_opsetid("", 16)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (expected,) = runtime.InferenceSession(model.SerializeToString()).run(None, feed)
    actual = roi_align(features, BOXES.float(), IMAGES, (3, 4), spatial_scale=0.25, aligned=aligned)
    torch.testing.assert_close(actual, torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


def test_a_linear_field_is_read_at_the_cell_centres() -> None:
    """Feature (row, column) holds its own pixel position: the mean over a cell is the position of the cell's centre."""
    stride, height, width = 4, 12, 16
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    field = (
        torch.stack([columns, rows])[None].double() * stride + stride / 2
    )  # centre of the cell, from the corner
    left, top, right, bottom = 9.0, 11.0, 51.0, 37.0
    boxes = torch.tensor([[left, top, right, bottom]], dtype=torch.float64)
    pooled = roi_align(field, boxes, torch.zeros(1, dtype=torch.int64), (2, 3), spatial_scale=1 / stride)
    across = torch.tensor([left + (j + 0.5) / 3 * (right - left) for j in range(3)], dtype=torch.float64)
    down = torch.tensor([top + (i + 0.5) / 2 * (bottom - top) for i in range(2)], dtype=torch.float64)
    torch.testing.assert_close(pooled[0, 0], across.expand(2, 3))
    torch.testing.assert_close(pooled[0, 1], down[:, None].expand(2, 3))


def test_gradients_equal_finite_differences() -> None:
    features = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    # no sample of these falls on a whole position, where bilinear sampling has a kink
    boxes = torch.tensor(
        [[3.1, 2.3, 17.7, 14.9], [-5.3, 1.7, 9.9, 25.1]], dtype=torch.float64, requires_grad=True
    )
    index = torch.tensor([1, 0])
    assert torch.autograd.gradcheck(
        lambda f, b: roi_align(f, b, index, (2, 2), spatial_scale=0.25), (features, boxes)
    )


def test_no_boxes_and_half_precision() -> None:
    features = torch.randn(1, 4, 6, 6).bfloat16()
    none = roi_align(
        features, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), (3, 2), spatial_scale=1.0
    )
    assert none.shape == (0, 4, 3, 2)
    box, first = torch.tensor([[0.5, 1.0, 4.5, 5.0]]), torch.zeros(1, dtype=torch.int64)
    half = roi_align(features, box, first, (2, 2), spatial_scale=1.0)
    full = roi_align(features.float(), box, first, (2, 2), spatial_scale=1.0)
    assert half.dtype == torch.bfloat16 and half.equal(full.bfloat16())
    with pytest.raises(ValueError, match="sampling_ratio should be at least 1, got 0"):
        roi_align(features, box, first, (2, 2), spatial_scale=1.0, sampling_ratio=0)


def test_scattering_is_the_transpose_of_gathering() -> None:
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, 9, (20, 4), generator=generator, dtype=torch.int32)
    index[index == 5] = 4  # a row that nothing reaches
    weight, values = torch.randn(20, 4, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    dense = torch.zeros(20, 9, dtype=torch.float64)
    for n in range(20):
        for j in range(4):
            dense[n, int(index[n, j])] += weight[n, j]
    table = torch.randn(9, 3, dtype=torch.float64)
    torch.testing.assert_close(gather_rows(table, index, weight), dense @ table)
    scattered = scatter_rows(values, index, weight, 9)
    torch.testing.assert_close(scattered, dense.T @ values)
    assert not scattered[5].any()
    assert not scatter_rows(values[:0], index[:0], weight[:0], 9).any()
    leaves = (table.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda t, w: gather_rows(t, index, w), leaves)


def loop_nms(boxes: list[list[float]], scores: list[float], labels: list[int], threshold: float) -> list[int]:
    def overlap(a: list[float], b: list[float]) -> float:
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
        return width * height / union if union > 0 else 0.0

    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(labels[i] != labels[j] or overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


# Whole numbers on a small grid: many overlaps, equal scores, empty boxes, and IoUs that meet the threshold exactly.
a_box = st.tuples(*[st.integers(0, 8)] * 2, *[st.integers(0, 6)] * 2).map(
    lambda b: [float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3])]
)
a_detection = st.tuples(a_box, st.integers(0, 5).map(float), st.integers(0, 2))


@given(st.lists(a_detection, max_size=25), st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0]))
def test_nms_equals_the_greedy_loop(detections, threshold: float) -> None:
    boxes, scores, labels = ([d[i] for d in detections] for i in range(3))
    box_tensor = torch.tensor(boxes, dtype=torch.float64).view(-1, 4)
    score_tensor, label_tensor = (
        torch.tensor(scores, dtype=torch.float64),
        torch.tensor(labels, dtype=torch.int64),
    )
    kept = nms(box_tensor, score_tensor, threshold)
    assert kept.tolist() == loop_nms(boxes, scores, [0] * len(boxes), threshold)
    kept = batched_nms(box_tensor, score_tensor, label_tensor, threshold)
    assert kept.tolist() == loop_nms(boxes, scores, labels, threshold)


@given(st.lists(a_detection, max_size=25), st.sampled_from([0.0, 0.25, 0.5, 0.7]))
def test_rivals_equal_the_loop_over_pairs(detections, threshold: float) -> None:
    boxes, scores, labels = ([d[i] for d in detections] for i in range(3))
    box_tensor = torch.tensor(boxes, dtype=torch.float64).view(-1, 4)
    score_tensor = torch.tensor(scores, dtype=torch.float64)
    label_tensor = torch.tensor(labels, dtype=torch.int64)
    overlaps = (box_iou(box_tensor, box_tensor) > threshold).tolist()
    expected = [
        any(
            (-scores[k], k) < (-scores[i], i) and labels[k] != labels[i] and overlaps[k][i]
            for k in range(len(boxes))
        )
        for i in range(len(boxes))
    ]
    assert beaten_by_rival(box_tensor, score_tensor, label_tensor, threshold).tolist() == expected
    copy = lens.beaten_by_rival(np.array(boxes).reshape(-1, 4), np.array(scores), np.array(labels), threshold)
    assert copy.tolist() == expected


def test_iou_of_known_boxes() -> None:
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    b = torch.tensor([[1.0, 1.0, 3.0, 3.0], [0.0, 0.0, 2.0, 1.0], [5.0, 5.0, 6.0, 6.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(box_iou(a, b), torch.tensor([[1 / 7, 1 / 2, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
