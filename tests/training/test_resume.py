"""Resuming: a damaged state falls back or is named, another training is told apart, other weights are found or refused."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from monolift.data.kitti import KittiDataset
from monolift.errors import InputError
from monolift.inference import zoo
from monolift.methods import get_method
from monolift.methods.recipe import Recipe
from monolift.methods.smoke import Smoke, SmokeConfig
from monolift.methods.ss3d import SS3D, SS3DConfig
from monolift.methods.ss3d import paper as ss3d_paper
from monolift.training.data import Encoder, Loader, Views
from monolift.training.initialise import find_weights, initialise
from monolift.training.optimizer import Average, make_optimizer
from monolift.training.processes import Processes
from monolift.training.state import Identity, State, compare_config, read_saved, restore, save_last, tidy
from toy_kitti import write_toy

CPU = torch.device("cpu")
CONFIG = SmokeConfig(classes=("Car",), input_width=128, input_height=64, head_channels=16)
RECIPE = Recipe(epochs=3, batch_size=2)
IDS = [f"{k:06d}" for k in range(4)]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy", IDS, cars=2, size=(248, 75)) / "training"


def parts(recipe: Recipe = RECIPE) -> tuple[Smoke, Average, torch.optim.Optimizer]:
    detector = Smoke(CONFIG)
    return detector, Average(detector, get_method("smoke"), recipe.ema), make_optimizer(detector, recipe)


@pytest.fixture
def out(toy: Path, tmp_path: Path) -> Path:
    """A run that has saved twice: at step 2, last.old, and at step 3."""
    detector, average, optimizer = parts()
    identity = Identity.of([KittiDataset(toy)], None, 1, 0, RECIPE)
    for state in (State(1, 2, 0), State(1, 3, 1, sums={"total": 1.5}, summed=1)):
        sum(p.sum() for p in detector.parameters()).backward()  # type: ignore[union-attr]
        optimizer.step()
        save_last(tmp_path / "run", state, detector, average, optimizer, identity, {})
    return tmp_path / "run"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def other_dict(path: Path) -> None:
    torch.save({"epoch": 3}, path)


def other_type(path: Path) -> None:
    torch.save([1, 2], path)


def without_recipe(path: Path) -> None:
    torch.save({**torch.load(path), "recipe": "fast"}, path)


def code(path: Path) -> None:
    path.write_bytes(pickle.dumps(print))


DAMAGE: list[Callable[[Path], object]] = [
    cut, other_dict, other_type, without_recipe, code,
    lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"x" * 999),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_falls_back_to_the_one_before_or_is_named(
    out: Path, damage: Callable[[Path], object]
) -> None:
    saved, problems = read_saved(out, CPU)
    assert saved is not None and not problems
    assert (saved.state.step, saved.state.sums) == (3, {"total": 1.5})
    damage(out / "last" / "trainer.pt")
    saved, problems = read_saved(out, CPU)
    assert saved is not None and saved.state.step == 2
    assert len(problems) == 1 and "last/trainer.pt: damaged, not a training state" in problems[0]
    tidy(out)
    with pytest.raises(InputError, match=r"last/trainer\.pt: damaged.*--overwrite.*--init"):
        read_saved(out, CPU)


def test_damaged_weights_fall_back_too(out: Path) -> None:
    cut(out / "last" / "model.safetensors")
    saved, problems = read_saved(out, CPU)
    assert saved is not None and saved.state.step == 2 and "model.safetensors" in problems[0]
    shutil.rmtree(out / "last.old")
    with pytest.raises(InputError, match="nothing to resume"):
        read_saved(out, CPU)
    shutil.rmtree(out / "last")
    assert read_saved(out, CPU) == (None, [])


def test_a_state_of_other_parameters_is_refused(out: Path) -> None:
    saved, _ = read_saved(out, CPU)
    assert saved is not None
    other = dataclasses.replace(RECIPE, weight_decay=0.0, backbone_lr_factor=1.0, bias_lr_factor=1.0)
    with pytest.raises(InputError, match="do not fit this training"):
        restore(saved, *parts(other), steps_per_epoch=2)
    with pytest.raises(InputError, match="which are not 5 steps an epoch"):
        restore(saved, *parts(), steps_per_epoch=5)
    detector, average, optimizer = parts()
    first = next(iter(saved.content["optimizer"]["state"].values()))
    first["exp_avg"] = torch.zeros(7)
    with pytest.raises(InputError, match="of other weights"):
        restore(saved, detector, average, optimizer, steps_per_epoch=2)


def test_another_training_is_told_apart_and_the_option_is_named(out: Path, toy: Path) -> None:
    saved, _ = read_saved(out, CPU)
    assert saved is not None
    data = KittiDataset(toy)

    def compare(
        ids: list[str] = IDS,
        val: list[str] | None = None,
        processes: int = 1,
        seed: int = 0,
        recipe: Recipe = RECIPE,
    ) -> None:
        held = KittiDataset(toy, val) if val else None
        assert saved is not None
        Identity.of([KittiDataset(data.root, ids)], held, processes, seed, recipe).compare(
            saved.content, saved.path
        )

    compare()
    for change, words in (
        ({"ids": IDS[:3]}, "--data and --split"),
        ({"ids": [*IDS[:3], IDS[0]]}, "--data and --split"),  # as many, but others
        ({"val": IDS[:1]}, "--val-split"),
        ({"processes": 2}, "--devices 1"),
        ({"seed": 4}, "--seed 0"),
        ({"recipe": dataclasses.replace(RECIPE, epochs=9)}, "--set 'epochs=3'"),
    ):
        with pytest.raises(InputError) as caught:
            compare(**change)  # type: ignore[arg-type]
        assert words in str(caught.value)
        assert "--overwrite" in str(caught.value)
    compare_config(CONFIG, CONFIG, saved)
    changed = dataclasses.replace(CONFIG, min_height=9.0)
    with pytest.raises(
        InputError, match=r"another configuration: min_height was 6\.0, is 9\.0: resume with --set"
    ):
        compare_config(changed, changed, saved)
    compare_config(dataclasses.replace(CONFIG, depth_mean=1.0), CONFIG, saved)  # measured, and the same again


def test_a_state_of_an_earlier_version_is_taken_by_what_it_says(out: Path, toy: Path) -> None:
    content = torch.load(out / "last" / "trainer.pt")
    for name in ("parts", "val", "processes", "sums", "summed"):
        del content[name]
    del content["recipe"]["augmentation"]["paste"]
    torch.save(content, out / "last" / "trainer.pt")
    saved, _ = read_saved(out, CPU)
    assert saved is not None
    Identity.of([KittiDataset(toy)], None, 3, 0, RECIPE).compare(saved.content, saved.path)
    assert restore(saved, *parts(), steps_per_epoch=2).step == 3


# -- weights to start from --------------------------------------------------------------------------------------------


def test_weights_are_found_by_name_folder_or_file_and_the_share_is_said(out: Path) -> None:
    assert find_weights("smoke") == zoo.resolve("smoke")
    assert find_weights(out / "last") == out / "last"
    assert find_weights(out / "last" / "model.safetensors") == out / "last"
    detector = Smoke(CONFIG)
    said = initialise(detector, zoo.resolve("ss3d"), lambda: torch.zeros(1, 3, 64, 128))
    assert "taken from this ss3d checkpoint" in said and "of the backbone" in said
    other = Smoke(dataclasses.replace(CONFIG, backbone="resnet18", head_channels=24))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(
        InputError, match=r"fills \d+% of its weights, expected at least 50%: it has the backbone nano"
    ):
        initialise(other, out / "last", lambda: torch.zeros(1, 3, 64, 128))
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    said = initialise(other, out / "last", lambda: torch.zeros(1, 3, 64, 128), partial=True)
    assert said.startswith("warning: ") and " 0 of " in said and "stay random" in said  # of the backbone


def test_a_checkpoint_that_fills_little_is_refused_unless_it_is_accepted(out: Path) -> None:
    """Another preset of the same method, whose few common entries are counters and biases, is no start."""
    images = lambda: torch.zeros(1, 3, 64, 128)  # noqa: E731
    whole = initialise(Smoke(CONFIG), out / "last", images)
    assert whole.endswith("100% of the weights, 100% of the backbone's")
    narrow = SS3D(SS3DConfig(classes=("Car",)))  # another class map, everything else as trained
    assert "stay random (network.classes.3.weight, network.classes.3.bias)" in initialise(
        narrow, zoo.resolve("ss3d"), images
    )
    with torch.device("meta"):
        other = SS3D(ss3d_paper(backbone="resnet18"))
    for partial in (False, True):  # nothing but counters fits: that is never a start
        with pytest.raises(InputError, match="fills 0% of its weights, expected at least 50%"):
            initialise(other, zoo.resolve("ss3d"), images, partial=partial)
    foreign = Smoke(dataclasses.replace(CONFIG, backbone="resnet18"))
    with pytest.raises(InputError, match="this ss3d checkpoint fills 0% of its backbone's weights"):
        initialise(foreign, zoo.resolve("ss3d"), images)


def test_files_that_fit_no_backbone_say_which_would(tmp_path: Path) -> None:
    images = lambda: torch.zeros(1, 3, 64, 128)  # noqa: E731
    for name in ("nothing", "nothing.pth"):
        with pytest.raises(InputError, match="nor a bundled model"):
            find_weights(tmp_path / name)
    with pytest.raises(InputError, match="not a checkpoint"):
        find_weights(tmp_path)
    (tmp_path / "weights.zip").write_bytes(b"x")
    with pytest.raises(InputError, match=r"got \.zip"):
        find_weights(tmp_path / "weights.zip")
    for name in ("w.pth", "w.safetensors", "w.onnx"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(InputError):
            initialise(Smoke(CONFIG), tmp_path / name, images)
    with pytest.raises(InputError, match=r"got \.onnx\. Files that fit are .*resnet18"):
        initialise(Smoke(dataclasses.replace(CONFIG, backbone="resnet18")), tmp_path / "w.onnx", images)
    with pytest.raises(InputError, match=r"w\.pth: expected a PyTorch file of plain tensors"):
        initialise(Smoke(CONFIG), tmp_path / "w.pth", images)


# -- the loader -------------------------------------------------------------------------------------------------------


def loader(toy: Path, workers: int) -> Loader:
    from monolift.augment.augment import Augmenter

    views = Views([KittiDataset(toy)], CONFIG, Augmenter(), Encoder(Smoke(CONFIG)), seed=5)
    return Loader(views, 2, Processes(0, 1, CPU), workers)


def test_workers_give_the_batches_that_the_training_process_gives(toy: Path) -> None:
    none, two = (loader(toy, workers) for workers in (0, 2))
    for epoch, skip in ((0, 0), (1, 1), (2, 0)):
        pairs = list(zip(none.epoch(epoch, skip), two.epoch(epoch, skip), strict=True))
        assert len(pairs) == 2 - skip
        for one, other in pairs:
            assert one.images.dtype == torch.uint8
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.colours, other.colours)
            assert torch.equal(one.targets.heatmap, other.targets.heatmap)
            assert one.targets.names == other.targets.names


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_one_line_from_a_worker_too(toy: Path, workers: int) -> None:
    (toy / "image_2" / "000002.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"000002\.png") as caught:
        list(loader(toy, workers).epoch(0))
    assert "Traceback" not in str(caught.value)


def test_no_weights_travel_to_a_loader_process() -> None:
    sent = pickle.dumps(Encoder(Smoke(CONFIG)))
    assert len(sent) < 10_000
    assert isinstance(pickle.loads(sent).detector, Smoke)
