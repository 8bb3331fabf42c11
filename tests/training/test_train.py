"""Training: every image once, the schedule, resuming to the same weights, faults that name their image."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from monolift.augment.augment import Augmenter
from monolift.augment.augmentation import Augmentation
from monolift.cli import main
from monolift.data.kitti import KittiDataset
from monolift.errors import InputError
from monolift.files.settings import apply_settings
from monolift.inference import checkpoint
from monolift.inference import zoo as model_zoo
from monolift.methods import get_method
from monolift.methods.recipe import Recipe
from monolift.methods.smoke import Smoke, SmokeConfig, official
from monolift.training.data import Encoder, Views, batches
from monolift.training.optimizer import freeze, make_optimizer
from toy_kitti import write_toy
from trained import train_with

IDS = [f"{k:06d}" for k in range(8)]
TINY = ("classes=Car", "input_width=128", "input_height=64", "head_channels=16", "batch_size=2", "epochs=2")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy"), IDS, cars=3, size=(248, 75))


def train_tiny(toy: Path, out: Path, *settings: str, **more: Any) -> Path:
    return train_with("smoke", toy, out, (*TINY, *settings), **more)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(folder).state_dict()


# -- the order of images and the schedule ---------------------------------------------------------------------------


def test_every_process_sees_its_share_and_all_together_every_image() -> None:
    world, size, count = 3, 2, 20
    shares = [
        [key for batch in batches(count, 4, 7, size, rank, world, 0) for key in batch]
        for rank in range(world)
    ]
    assert {len(s) for s in shares} == {
        count // (size * world) * size
    }  # equally many, or the gradients wait for ever
    seen = [key for s in shares for key in s]
    assert len(set(seen)) == len(seen) == 18
    assert {epoch for epoch, _ in seen} == {4}
    assert {i for _, i in seen} <= set(range(count))


def test_the_order_is_the_epochs_own_and_resuming_skips_what_was_done() -> None:
    whole = list(batches(20, 1, 0, 3, 0, 1, 0))
    assert whole == list(batches(20, 1, 0, 3, 0, 1, 0))
    assert whole != [[(1, i) for _, i in b] for b in batches(20, 2, 0, 3, 0, 1, 0)]
    assert whole != list(batches(20, 1, 5, 3, 0, 1, 0))
    assert list(batches(20, 1, 0, 3, 0, 1, 4)) == whole[4:]
    assert list(batches(20, 1, 0, 3, 0, 1, len(whole))) == []


def test_a_image_of_an_epoch_is_always_augmented_alike(toy: Path) -> None:
    detector = Smoke(SmokeConfig(classes=("Car",), input_width=128, input_height=64, head_channels=16))

    def views(seed: int) -> Views:
        return Views([KittiDataset(toy)], detector.config, Augmenter(), Encoder(detector), seed)

    def image(seed: int, epoch: int) -> torch.Tensor:
        return views(seed)[[(epoch, 5)]].network_images(detector)

    (a, colour), (b, again) = views(3).view(2, 5), views(3).view(2, 5)
    assert torch.equal(a.image, b.image)
    assert torch.equal(colour, again)
    assert torch.equal(a.boxes2d, b.boxes2d)
    assert torch.equal(image(3, 2), image(3, 2))
    assert not torch.equal(image(3, 2), image(3, 3))
    assert not torch.equal(image(3, 2), image(4, 2))


def test_rates_of_the_two_schedules() -> None:
    steps = Recipe(schedule="steps", milestones=(0.4, 0.72), warmup=0.0)
    assert [steps.rate(p) for p in (0, 0.39, 0.41, 0.71, 0.73, 1)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    cosine = Recipe(schedule="cosine", warmup=0.1)
    assert cosine.rate(0) == pytest.approx(0.01)
    assert cosine.rate(0.05) == pytest.approx(0.505)
    assert cosine.rate(1) == pytest.approx(0.01)
    rates = [cosine.rate(p / 100) for p in range(10, 101)]
    assert rates == sorted(rates, reverse=True)


def test_the_published_optimiser_trains_biases_twice_as_fast() -> None:
    recipe = get_method("smoke").recipes["official"]
    model = Smoke(official(backbone="nano", head_channels=16))
    optimizer = make_optimizer(model, recipe)
    assert type(optimizer) is torch.optim.Adam
    rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert set(rate) == {id(p) for p in model.parameters()}
    for name, parameter in model.named_parameters():
        assert rate[id(parameter)] == pytest.approx(5e-4 if name.endswith(".bias") else 2.5e-4)
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.0}
    assert recipe.milestones == pytest.approx(
        (10 / 25, 18 / 25)
    )  # of 25,000 iterations, smoke_gn_vector.yaml
    decayed = make_optimizer(model, Recipe(weight_decay=0.1))
    for group in decayed.param_groups:
        assert (group["weight_decay"] == 0.1) == (group["params"][0].ndim > 1)


# -- settings ---------------------------------------------------------------------------------------------------------


def test_settings_change_what_they_name() -> None:
    config, recipe = apply_settings(
        (SmokeConfig(), Recipe()),
        [
            "classes=Car,Tram",
            "boxes2d=false",
            "size_limit=1",
            "epochs=7",
            "augmentation.mirror=0",
            "augmentation.scale=[1,1.5]",
        ],
    )
    assert config.classes == ("Car", "Tram")
    assert len(config.sizes) == 2  # the sizes belong to the classes
    assert (config.boxes2d, config.size_limit, recipe.epochs) == (False, 1.0, 7)
    assert recipe.augmentation == Augmentation(mirror=0, scale=(1, 1.5))


@pytest.mark.parametrize("setting, words", [
    ("epochs", "expected key=value"),
    ("epoch=3", "did you mean epochs?"),
    ("epochs=many", "expected int like 30, got 'many'"),
    ("epochs=0", "at least 1"),
    ("boxes2d=maybe", "expected bool"),
    ("fit=huge", "fit must be one of"),
    ("augmentation.flip=1", "Augmentation has no flip"),
    ("lr.base=1", "lr has no fields"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(setting: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        apply_settings((SmokeConfig(), Recipe()), [setting])
    assert words in str(caught.value)


# -- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_checkpoints_and_its_history(toy: Path, tmp_path: Path) -> None:
    (toy / "train.txt").write_text("\n".join(IDS[:6]))
    (toy / "val.txt").write_text("\n".join(IDS[6:]))
    settings = ("epochs=3", "lr=3e-3", "ema=0.5")
    best = train_tiny(
        toy, tmp_path / "run", *settings, split=toy / "train.txt", val_split=toy / "val.txt", val_every=2
    )
    assert best == tmp_path / "run" / "best"
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(r["epoch"], r["step"]) for r in rows] == [(1, 3), (2, 6), (3, 9)]
    assert rows[-1]["heatmap"] < rows[0]["heatmap"]
    assert ["selection" in r for r in rows] == [False, True, True]  # every second epoch and the last
    with (tmp_path / "run" / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(r["total"]) for r in table] == pytest.approx([r["total"] for r in rows])
    assert list((tmp_path / "run" / "images").glob("*.jpg"))
    model = checkpoint.load(best)
    assert model.config.sizes[0] != SmokeConfig().sizes[0]  # measured on the training split
    assert checkpoint.read_card(best)["validation"]["selection"] >= 0
    assert not torch.equal(
        weights(best)["network.heatmap.3.weight"],
        weights(tmp_path / "run" / "last")["network.heatmap.3.weight"],
    )


def test_what_was_asked_for_outweighs_what_was_measured(toy: Path, tmp_path: Path) -> None:
    last = train_tiny(toy, tmp_path / "run", "epochs=1", "depth_mean=33.0")
    assert checkpoint.load(last).config.depth_mean == 33.0


# -- resuming ---------------------------------------------------------------------------------------------------------


def script(out: Path, toy: Path, *flags: str) -> list[str]:
    path = Path(__file__).parents[1] / "helpers" / "train_script.py"
    return [sys.executable, str(path), str(out), str(toy), *TINY, "epochs=3", "lr=3e-3", *flags]


def environment() -> dict[str, str]:
    source = str(Path(__file__).resolve().parents[2] / "src")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }


def test_a_killed_and_resumed_run_ends_with_the_same_weights(toy: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of an epoch; then the resumed run against one that was never stopped, bit for bit."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    never_stopped = subprocess.Popen(script(whole, toy), env=environment())
    victim = subprocess.Popen(script(killed, toy, "--slow"), env=environment())
    state = killed / "last" / "trainer.pt"

    def progress() -> tuple[int, int]:
        try:
            saved = torch.load(state, weights_only=True)
        except (FileNotFoundError, RuntimeError, EOFError):  # between two renames
            return (0, 0)
        return saved["epoch"], saved["done"]

    try:
        while progress() < (1, 1):  # the second epoch has begun
            assert victim.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        epoch, done = progress()
        assert (epoch, done) < (2, 4), "killed too late to test anything"
        assert never_stopped.wait() == 0
    finally:
        victim.kill()
        never_stopped.kill()
    resumed = subprocess.run(script(killed, toy, "--resume"), env=environment(), check=False)
    assert resumed.returncode == 0
    a, b = weights(whole / "last"), weights(killed / "last")
    assert all(torch.equal(a[k], b[k]) for k in a)
    states = [torch.load(run / "last" / "trainer.pt", weights_only=True) for run in (whole, killed)]
    assert states[0]["step"] == states[1]["step"] == 12
    assert all(torch.equal(states[0]["average"][k], states[1]["average"][k]) for k in a)
    rows = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (whole, killed)
    ]
    assert rows[0] == rows[1]  # the interrupted epoch is that of all its steps
    assert [r["epoch"] for r in rows[1]] == [1, 2, 3]


def test_resuming_needs_a_run_of_the_same_kind(toy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_tiny(toy, run, "epochs=1", resume=True)  # nothing there yet: begins
    for changed in ("lr=0.5", "quirks.corrected_radius=true"):
        with pytest.raises(InputError, match=r"another (recipe|configuration)"):
            train_tiny(toy, run, "epochs=1", changed, resume=True)
    with pytest.raises(InputError, match="another recipe or seed"):
        train_tiny(toy, run, "epochs=1", resume=True, seed=1)
    finished = weights(run / "last")
    train_tiny(toy, run, "epochs=1", resume=True)  # all done: changes nothing
    assert all(torch.equal(v, finished[k]) for k, v in weights(run / "last").items())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("not a run")
    with pytest.raises(InputError, match="nothing to resume"):
        train_tiny(toy, tmp_path / "other", resume=True)


def test_the_other_half_of_a_torn_rename_is_found(toy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_tiny(toy, run, "epochs=1")
    finished = weights(run / "last")
    (run / "last").rename(run / "last.old")  # a kill between two renames leaves it so
    train_tiny(toy, run, "epochs=1", resume=True)
    assert all(torch.equal(v, finished[k]) for k, v in weights(run / "last.old").items())


# -- faults -----------------------------------------------------------------------------------------------------------


def test_a_bundled_model_of_another_method_lends_its_backbone_by_name(toy: Path, tmp_path: Path) -> None:
    arguments = [
        "train",
        "ss3d",
        "--data",
        str(toy),
        "--out",
        str(tmp_path / "run"),
        "--init",
        "smoke",
        "--quiet",
    ]
    changes = ("epochs=1", "lr=1e-12", "ema=0", 'freeze=["stem","dark2"]')
    for change in (*TINY, *changes):
        arguments += ["--set", change]
    assert main(arguments) == 0
    learnt, lent = weights(tmp_path / "run" / "last"), weights(model_zoo.resolve("smoke"))
    shared = [
        k
        for k in learnt
        if k.startswith("network.backbone.") and k.endswith(".weight") and learnt[k].ndim == 4
    ]
    assert len(shared) > 20
    for name in shared:
        torch.testing.assert_close(learnt[name], lent[name], atol=1e-6, rtol=0)


def test_a_loss_that_is_not_finite_stops_and_names_the_images(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Smoke.loss, []

    def poisoned(self: Smoke, raw: Any, targets: Any) -> dict[str, torch.Tensor]:
        losses = real(self, raw, targets)
        calls.append(targets.names)
        if len(calls) == 6:  # in the second epoch
            losses = {**losses, "total": losses["total"] * float("nan")}
        return losses

    monkeypatch.setattr(Smoke, "loss", poisoned)
    with pytest.raises(FloatingPointError) as caught:
        train_tiny(toy, tmp_path / "run")
    assert "epoch 2" in str(caught.value)
    assert all(name in str(caught.value) for name in calls[-1])
    assert len(calls) == 6
    saved = checkpoint.load(tmp_path / "run" / "last")
    assert all(torch.isfinite(v).all() for v in saved.state_dict().values())


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", ["nan", "huge"])
def test_a_last_step_that_spoils_the_weights_is_never_saved(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    """The loss of the epoch's last step is finite: it is that of the weights before."""
    real, steps = Smoke.after_step, []

    def explodes(self: Smoke) -> None:
        real(self)
        steps.append(1)
        if len(steps) == 8:  # the last of the second epoch
            with torch.no_grad():
                for parameter in self.network.parameters():
                    parameter.fill_(float("nan") if spoilt == "nan" else 3e38)

    monkeypatch.setattr(Smoke, "after_step", explodes)
    run = tmp_path / "run"
    with pytest.raises(
        FloatingPointError, match=r"step 8 in epoch 2 spoilt the weights.*not saved.*run/last"
    ):
        train_tiny(toy, run, val_every=1)
    assert torch.load(run / "last" / "trainer.pt", weights_only=True)["step"] == 4
    assert all(torch.isfinite(v).all() and v.abs().max() < 1e6 for v in weights(run / "last").values())
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    monkeypatch.setattr(Smoke, "after_step", real)
    train_tiny(toy, run, val_every=1, resume=True)
    train_tiny(toy, tmp_path / "whole", val_every=1)
    a, b = weights(run / "last"), weights(tmp_path / "whole" / "last")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert (run / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_training_images_may_not_be_validated(toy: Path, tmp_path: Path) -> None:
    (toy / "half.txt").write_text("\n".join(IDS[:6]))
    (toy / "leak.txt").write_text("\n".join(IDS[4:]))
    with pytest.raises(InputError, match="2 images are in both splits, first 000004"):
        train_tiny(toy, tmp_path / "run", split=toy / "half.txt", val_split=toy / "leak.txt")


def test_options_that_cannot_be_are_refused(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="preset must be one of default, paper, official"):
        train_tiny(toy, tmp_path, preset="best")
    with pytest.raises(InputError, match="8 images do not fill one batch of 9"):
        train_tiny(toy, tmp_path, "batch_size=9")
    with pytest.raises(InputError, match="no training object of class Pedestrian"):
        train_tiny(toy, tmp_path, "classes=Car,Pedestrian")
    with pytest.raises(InputError, match="expected a KITTI folder"):
        train_tiny(tmp_path, tmp_path)


# -- several processes ------------------------------------------------------------------------------------------------


def test_two_processes_train_one_model(toy: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, *script(tmp_path / "run", toy, "--hash")[1:]]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ends = [(tmp_path / "run" / f"hash{rank}").read_text() for rank in range(2)]
    assert ends[0] == ends[1]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(r["epoch"], r["step"]) for r in rows] == [
        (1, 2),
        (2, 4),
        (3, 6),
    ]  # half as many steps of twice the images
    assert checkpoint.load(tmp_path / "run" / "last").classes == ("Car",)


def test_a_part_of_a_part_of_the_backbone_can_be_frozen() -> None:
    detector = Smoke(SmokeConfig(backbone="resnet18", input_width=64, input_height=32))
    [first] = freeze(detector, Recipe(freeze=("base.stages.0",)))
    assert first is detector.backbone.get_submodule("base.stages.0")
    trained = [name for name, p in detector.backbone.named_parameters() if not p.requires_grad]
    assert trained and all(name.startswith("base.stages.0.") for name in trained)
    for wrong in ("base.stages.9", ""):
        with pytest.raises(InputError, match="it has base, up"):
            freeze(detector, Recipe(freeze=(wrong,)))
