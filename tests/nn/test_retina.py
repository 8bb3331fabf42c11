"""Feature pyramids and RetinaNet's head."""

from __future__ import annotations

import math

import pytest
import torch

from monolift.errors import InputError
from monolift.nn.backbones import build_backbone
from monolift.nn.fpn import FPN, pyramid_strides
from monolift.nn.retina import (
    PRIOR,
    RetinaHead,
    anchor_boxes,
    boxes_from_deltas,
    deltas_from_boxes,
    focal_loss,
)


def test_nanos_finest_level_is_the_map_of_the_plain_backbone() -> None:
    backbone = build_backbone("nano", kind="pyramid").eval()
    plain = build_backbone("nano").eval()
    plain.load_state_dict(backbone.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        levels = backbone.pyramid(image)
        torch.testing.assert_close(levels[0], plain(image))
    assert [tuple(x.shape[1:]) for x in levels] == [(64, 64 // s, 96 // s) for s in backbone.strides]


@pytest.mark.parametrize("name", ["nano", "efficientnet-lite2", "resnet18"])
def test_strides_are_those_of_the_maps(name: str) -> None:
    backbone = build_backbone(name, "group", kind="pyramid", out_channels=64)
    height, width = 96, 160
    with torch.no_grad():
        levels = backbone.pyramid(torch.randn(1, 3, height, width))
    assert pyramid_strides(name) == backbone.strides
    shapes = [(-(-height // s), -(-width // s)) for s in backbone.strides]
    assert [tuple(x.shape[2:]) for x in levels] == shapes
    assert {x.shape[1] for x in levels} == {backbone.out_channels}


def test_unknown_pyramids_are_named() -> None:
    with pytest.raises(InputError, match="one of nano, efficientnet-lite2, resnet18, resnet34"):
        build_backbone("dla34", kind="pyramid")


def test_fpn_adds_the_enlarged_coarser_map() -> None:
    """With identities for its convolutions each level is the sum of itself and the nearest of the coarser ones."""
    fpn = FPN((2, 2), 2)
    for k in range(2):
        fpn.lateral[k].weight.data = torch.eye(2)[:, :, None, None]
        fpn.smooth[k].weight.data = torch.zeros(2, 2, 3, 3)
        fpn.smooth[k].weight.data[:, :, 1, 1] = torch.eye(2)
    fine, coarse = torch.randn(1, 2, 3, 5), torch.randn(1, 2, 2, 3)
    levels = fpn([fine, coarse])
    torch.testing.assert_close(levels[1], coarse)
    rows, columns = torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1, 1, 2])
    torch.testing.assert_close(levels[0], fine + coarse[:, :, rows][:, :, :, columns])


def test_anchors_stand_in_the_order_of_the_heads_rows() -> None:
    """Row k of the head's answer and anchor k belong to one cell: a spike in the features moves the rows round it."""
    head = RetinaHead(32, anchors=4, classes=1, depth=1, separable=True).eval()
    torch.nn.init.normal_(head.score.weight)
    levels = [torch.zeros(1, 32, 4, 8), torch.zeros(1, 32, 2, 4)]
    anchors = anchor_boxes(64, 32, (8, 16), 3.0, (1.0, 1.5), (0.5, 1.0))
    with torch.no_grad():
        before = head.score(levels[1])
        levels[1][0, :, 1, 3] = torch.randn(32)
        # group norm would move all cells: only the last layer is read here
        moved = (head.score(levels[1]) - before).abs().sum(1)[0]
        scores, deltas = head(levels)
    assert scores.shape[1] == deltas.shape[1] == len(anchors) == 4 * (4 * 8 + 2 * 4)
    assert moved[1, 3] > 0
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    first = 4 * 4 * 8 + 4 * (1 * 4 + 3)  # row 1, column 3 of the second level
    torch.testing.assert_close(middle[first : first + 4], torch.tensor([[55.5, 23.5]]).expand(4, 2))
    size = anchors[first : first + 4, 2:] - anchors[first : first + 4, :2]
    torch.testing.assert_close(size.prod(1), torch.tensor([48.0**2, 48.0**2, 72.0**2, 72.0**2]))
    torch.testing.assert_close(size[:, 1] / size[:, 0], torch.tensor([0.5, 1.0, 0.5, 1.0]))


def test_untrained_scores_are_the_prior() -> None:
    head = RetinaHead(32, anchors=2, classes=3, depth=2, separable=False)
    scores, _ = head([torch.randn(1, 32, 8, 8)])
    assert float(torch.sigmoid(scores).mean().detach()) == pytest.approx(PRIOR, rel=0.3)


def test_deltas_and_boxes_invert_each_other() -> None:
    anchors = anchor_boxes(64, 32, (8,), 4.0, (1.0,), (0.5, 1.0))
    boxes = anchors + 5 * torch.rand(len(anchors), 4) + torch.tensor([0.0, 0, 6, 6])
    torch.testing.assert_close(boxes_from_deltas(deltas_from_boxes(boxes, anchors), anchors), boxes)
    flat = boxes_from_deltas(torch.tensor([[0.0, 0, 99, 0]]), anchors[:1])
    assert bool(torch.isfinite(flat).all())


def test_focal_loss_against_its_formula() -> None:
    logits, target, weight = (
        torch.tensor([[0.3], [-1.2], [4.0]]),
        torch.tensor([[1.0], [0.0], [0.0]]),
        torch.ones(3, 1),
    )
    expected = 0.0
    for x, y in zip(logits[:, 0].tolist(), target[:, 0].tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        hit = p if y else 1 - p
        expected -= (0.25 if y else 0.75) * (1 - hit) ** 2 * math.log(hit)
    assert float(focal_loss(logits, target, weight)) == pytest.approx(expected, rel=1e-5)
    weight[2] = 0
    assert float(focal_loss(logits, target, weight)) < 0.5 * expected
