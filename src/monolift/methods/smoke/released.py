"""SMOKE checkpoints of other programs: their entries under our names, and the configuration that gives them their meaning.

Two are known: lzccccc/SMOKE, the released code of the paper, and MMDetection3D's version of it (1.4; a file of 0.x has the same
names). Both hold 233 entries, of which 227 have a place here; the other six project the input of the two-level trees of DLA-34,
and nothing in either program reads what they give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from monolift.errors import InputError
from monolift.methods.base import Released
from monolift.methods.smoke.config import SmokeConfig, official
from monolift.methods.smoke.network import SmokeNetwork
from monolift.nn.pretrained import ReleasedNames
from monolift.typing import Tensor

_COUNTED = tuple(
    (rf"\.{theirs}_{k}\.", rf".{ours}.{k - 1}.")
    for theirs, ours in (("proj", "project"), ("up", "upsample"), ("node", "node"))
    for k in (1, 2, 3)
)
_UP_PATH = (
    (r"(backbone\.body|neck)\.dla_up\.ida_(\d)\.", r"network.backbone.up.step.\2."),
    (r"(backbone\.body|neck)\.ida_up\.", "network.backbone.merge."),
    *_COUNTED,
)
_UNUSED = r"level[34]\.project\."

OFFICIAL_NAMES = ReleasedNames(
    like="lzccccc/SMOKE",
    renames=(
        (r"^backbone\.body\.base\.base_layer\.", "network.backbone.base.stem."),
        (r"^backbone\.body\.base\.", "network.backbone.base."),
        *_UP_PATH,
        (r"\.deform_conv\.", ".conv."),
        (r"^heads\.predictor\.class_head\.", "network.heatmap."),
        (r"^heads\.predictor\.regression_head\.", "network.regression.0."),
    ),
    unused=(r"backbone\.body\.base\." + _UNUSED,),
)
MMDET3D_NAMES = ReleasedNames(
    like="MMDetection3D",
    renames=(
        (r"^backbone\.base_layer\.", "network.backbone.base.stem."),
        (r"^backbone\.", "network.backbone.base."),
        *_UP_PATH,
        (r"\.conv\.conv_offset\.", ".conv.conv_offset_mask."),
        (r"^(network\.backbone\.(up|merge)\..*)\.gn\.", r"\1.norm."),
        (r"^bbox_head\.conv_cls_prev\.0\.conv\.", "network.heatmap.0."),
        (r"^bbox_head\.conv_cls_prev\.0\.gn\.", "network.heatmap.1."),
        (r"^bbox_head\.conv_cls\.", "network.heatmap.3."),
        (r"^bbox_head\.conv_reg_prevs\.0\.0\.conv\.", "network.regression.0.0."),
        (r"^bbox_head\.conv_reg_prevs\.0\.0\.gn\.", "network.regression.0.1."),
        (r"^bbox_head\.conv_regs\.0\.", "network.regression.0.3."),
    ),
    unused=(r"backbone\." + _UNUSED,),
)
_MARKS = {"heads.predictor.class_head.3.weight": OFFICIAL_NAMES, "bbox_head.conv_cls.weight": MMDET3D_NAMES}


def mmdet3d() -> SmokeConfig:
    """``official`` with what MMDetection3D changes: class order, RGB, the whole of P2, 100 detections an image."""
    base = official()
    return replace(
        base,
        classes=base.classes[::-1],
        sizes=base.sizes[::-1],
        top_k=100,
        quirks=replace(base.quirks, bgr=False, intrinsics_only=False),
    )


def released(entries: Mapping[str, Tensor]) -> Released | None:
    """A file's entries under our names, or None where they are no SMOKE of a known program.

    Args:
        entries: tensors by the file's names, without ``module.``.

    Raises:
        InputError: a SMOKE of a known program with entries that are missing, unknown, of another shape, or not finite.
    """
    names = next((found for mark, found in _MARKS.items() if mark in entries), None)
    if names is None:
        return None
    config = official() if names is OFFICIAL_NAMES else mmdet3d()
    placed = {names.rename(name): value for name, value in entries.items() if not names.is_unused(name)}
    _check(names.like, placed, config)
    return Released(
        program=names.like,
        config=config,
        state={name: value.float() for name, value in placed.items()},
        ignored=tuple(name for name in entries if names.is_unused(name)),
    )


def for_config(found: Released, config: SmokeConfig) -> tuple[dict[str, Tensor], list[str]]:
    """The entries as a detector of ``config`` takes them, and what had to be changed, in words.

    The rows of the heatmap's last layer follow the order of ``config.classes``. Where the program feeds the other order of
    colours, the first layer's input channels swap places: a start for training, not the same network, since the released code
    normalises blue by the statistics of red.
    """
    state, told = dict(found.state), []
    theirs = found.config
    if config.classes != theirs.classes and set(config.classes) == set(theirs.classes):
        order = [theirs.classes.index(name) for name in config.classes]
        for name in ("network.heatmap.3.weight", "network.heatmap.3.bias"):
            state[name] = state[name][order]
        told.append(f"classes reordered to {', '.join(config.classes)}")
    if config.quirks.bgr != theirs.quirks.bgr:
        state["network.backbone.base.stem.0.weight"] = state["network.backbone.base.stem.0.weight"].flip(1)
        told.append("input channels swapped (blue and red)")
    return state, told


def _check(program: str, placed: Mapping[str, Tensor], config: SmokeConfig) -> None:
    """Raises InputError unless the entries fill the network of ``config`` exactly."""
    with torch.device("meta"):
        network = SmokeNetwork(
            config.backbone, len(config.classes), (8,), config.head_channels, config.norm, config.deformable
        )
    own = {f"network.{name}": value.shape for name, value in network.state_dict().items()}
    missing, unknown = [n for n in own if n not in placed], [n for n in placed if n not in own]
    wrong = [n for n in own if n in placed and placed[n].shape != own[n]]
    whole = [n for n in own if n in placed and not placed[n].is_floating_point()]
    problems = {"missing": missing, "unknown": unknown, "of another shape": wrong, "no real numbers": whole}
    for problem, entries in problems.items():
        if entries:
            shape = f" {tuple(placed[entries[0]].shape)}" if entries is wrong else ""
            raise InputError(
                f"{len(entries)} of {len(own)} entries of a SMOKE of {program} are {problem} (first: {entries[0]}{shape}): "
                "expected DLA-34 with deformable up-path, group norm, three classes and eight channels of regression"
            )
    broken = next((n for n, v in placed.items() if not bool(v.isfinite().all())), None)
    if broken is not None:
        raise InputError(f"{broken} is not finite: the checkpoint is damaged")
