"""The whole chain learns: one real-sized scene by heart, from files through training to KITTI's AP."""

from __future__ import annotations

from pathlib import Path

import torch

from monolift.data.kitti import KittiDataset
from monolift.evaluation import evaluate
from monolift.geometry import iou_3d
from monolift.inference import checkpoint
from monolift.training.validate import detect_sample, validate
from toy_kitti import write_toy
from trained import train_with

EPOCHS, COPIES, CARS = 6, 24, 5  # 144 steps
IDS = [f"{k:06d}" for k in range(COPIES + 10)]


def test_one_scene_is_learnt_to_an_ap_above_90(tmp_path: Path) -> None:
    """1242 x 375, five cars; ResNet-18 with group norm at a small input; AP R40 of 3D boxes at IoU 0.7.

    Group norm, because a network with batch norm that sees one image only learns its very statistics and is another network
    in evaluation mode. The scene stands under many ids, since AP needs more than 41 objects to reach all recall positions.
    """
    root = write_toy(tmp_path, IDS, cars=CARS, same=True)
    (root / "train.txt").write_text("\n".join(IDS[:COPIES]))
    settings = (
        "classes=Car",
        "backbone=resnet18",
        "norm=group",
        "input_width=320",
        "input_height=96",
        "batch_size=1",
        f"epochs={EPOCHS}",
        "lr=1e-3",
        "backbone_lr_factor=1",
        "ema=0.95",
        "augmentation.mirror=0",
        "augmentation.recolor=0",
        "augmentation.scale=[1,1]",
        "augmentation.shift=0",
    )
    best = train_with("smoke", root, root / "run", settings, split=root / "train.txt", val_every=100)
    model = checkpoint.load(best)
    scenes = KittiDataset(root, IDS[COPIES:])
    assert len(scenes) * CARS > 41
    validate(model, scenes, root / "results")
    table = evaluate(labels=scenes.root / "label_2", predictions=root / "results", split=root / "results.txt")
    for metric in ("bbox", "bev", "3d"):
        row = table.row(metric, "Car", "moderate", "strict")
        assert row is not None
        assert row.ap_r40 > 90, f"{metric}: {row.ap_r40:.1f}"

    # the same image at 0.8 of its size, with its camera: other pixels, the same boxes
    scene = scenes[0]
    small = torch.nn.functional.interpolate(scene.image[None].float(), (300, 994), mode="area")[0]
    camera = scene.camera.after_resize(994, 300)
    again = detect_sample(model, type(scene)("small", small.round().to(torch.uint8), camera))
    sure = again[again.scores > 0.3]
    assert len(sure) == CARS
    assert iou_3d(sure.boxes, scene.boxes).amax(0).min() > 0.6
