"""A training described by a file: what is written is read back to the same training, and nonsense is one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from monolift.cli import main
from monolift.errors import InputError
from monolift.files.settings import apply_settings
from monolift.methods import METHODS, get_method
from monolift.training.options import RunOptions, as_settings, choose, described
from monolift.training.run_file import RunFile, format_run_file, read_run_file

SETTINGS = (
    "classes=Car",
    "input_width=256",
    "epochs=7",
    "augmentation.scale=(0.7,2.2)",
    "freeze=stem,dark2",
    "lr=1e-12",
)


@pytest.mark.parametrize("name", METHODS)
def test_a_training_in_words_is_the_same_training(name: str, tmp_path: Path) -> None:
    method = get_method(name)
    for preset in method.presets:
        chosen = choose(method, preset, settings=SETTINGS)
        near, changes = described(method, chosen.config, chosen.config, chosen.recipe, chosen.keep)
        run = RunFile(
            method=name, preset=near, data=("a b", 'c"d\\e'), seed=3, save_minutes=0.5, settings=changes
        )
        path = tmp_path / "run.toml"
        path.write_text(format_run_file(run))
        again = read_run_file(path)
        assert replace(again, settings={}) == replace(run, settings={})
        assert near == preset
        back = choose(method, near, again.settings, where=str(path))
        assert (back.config, back.recipe) == (chosen.config, chosen.recipe)
        assert back.keep >= chosen.keep
        typed = choose(method, near, settings=as_settings(changes))
        assert (typed.config, typed.recipe) == (chosen.config, chosen.recipe)


def test_what_was_measured_is_left_out_and_what_was_set_is_not() -> None:
    method = get_method("smoke")
    config = method.config(depth_mean=33.0)
    measured = replace(config, depth_std=9.0, focal=300.0)
    _, changes = described(method, config, measured, method.recipes["default"], {"focal"})
    assert changes == {"depth_mean": 33.0, "focal": config.focal}
    assert choose(method, given=changes).keep == {"depth_mean", "focal"}
    assert not choose(method, "official").measure


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    texts = {
        "run.toml": 'method = "smoke"\ndata = "KITTI"\n[settings]\nepochs = 3\naugmentation.mirror = 0\n',
        "run.yaml": "method: smoke\ndata: KITTI\nsettings:\n  epochs: 3\n  augmentation:\n    mirror: 0\n",
        "run.json": '{"method": "smoke", "data": ["KITTI"], "settings": {"epochs": 3, "augmentation": {"mirror": 0}}}',
    }
    found = []
    for name, text in texts.items():
        (tmp_path / name).write_text("\ufeff" + text, encoding="utf-8")
        found.append(read_run_file(tmp_path / name))
    assert found[0] == found[1] == found[2]
    assert found[0].data == ("KITTI",)
    chosen = choose(get_method("smoke"), given=found[0].settings, settings=["epochs=4"])
    assert (chosen.recipe.epochs, chosen.recipe.augmentation.mirror) == (4, 0)


@pytest.mark.parametrize("name, text, words", [
    ("run.toml", "method = ", "not TOML"),
    ("run.toml", "x = " + "[" * 100_000, "not TOML"),
    ("run.toml", "x = " + "9" * 5000, "not TOML"),
    ("run.toml", 'methods = "smoke"', "did you mean method?"),
    ("run.toml", "method = 3", "method: expected text"),
    ("run.toml", "seed = 1.5", "seed: expected int"),
    ("run.toml", "seed = 2020-01-01", "seed: expected int"),
    ("run.toml", "workers = true", "workers: expected int"),
    ("run.toml", "data = [1]", "data: expected text"),
    ("run.toml", "settings = 3", "settings: expected named values"),
    ("run.json", "[1]", "expected named entries"),
    ("run.json", "[" * 100_000, "run.json"),
    ("run.yaml", "a: &a [1]\nb: *a\n", "run.yaml"),
    ("run.yaml", "!!python/object/apply:os.system [ls]", "run.yaml"),
    ("run.yaml", "[" * 3000, "run.yaml"),
    ("run.yaml", "settings: [1]", "settings: expected named values"),
    ("run.ini", "x", "expected .toml"),
    ("run.toml", "\0", "run.toml"),
])  # fmt: skip
def test_a_description_that_is_none_is_one_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        read_run_file(tmp_path / name)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400


def test_settings_of_a_file_name_it(tmp_path: Path) -> None:
    method = get_method("smoke")
    for given, words in (
        ({"epoch": 3}, "run.toml: settings.unknown setting 'epoch'; did you mean epochs?"),
        ({"epochs": "3"}, "run.toml: settings.epochs: expected int"),
        ({"epochs": 0}, "run.toml: recipe epochs must be at least 1"),
        ({"augmentation": 3}, "run.toml: settings.augmentation: expected its fields"),
    ):
        with pytest.raises(InputError) as caught:
            choose(method, given=given, where="run.toml")
        assert str(caught.value).startswith(words)


@pytest.mark.parametrize("options", [
    {"seed": -1}, {"seed": 2**64}, {"val_every": 0}, {"workers": -1}, {"workers": 10_000}, {"save_minutes": -1.0},
    {"save_minutes": float("nan")},
])  # fmt: skip
def test_options_of_a_run_have_limits(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        RunOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments, words", [
    (["smoke", "--seed", "-1"], "seed must be at least 0"),
    (["smoke", "--val-every", "0"], "val_every must be at least 1"),
    (["smoke", "--workers", "-1"], "workers must be at least 0"),
    (["smoke", "--save-minutes", "nan"], "--save-minutes: expected a finite number, got nan"),
    (["smoke", "--devices", "0"], "--devices: expected 1 to"),
    (["smoke", "--devices", "100000"], "--devices: expected 1 to"),
    (["smoke", "--device", "x"], "device 'x'"),
    (["smoke", "--device", "meta"], "device 'meta'"),
    (["smoke", "--preset", "best"], "smoke preset must be one of"),
    (["smoke", "--init", "nothing"], "nothing: no such file"),
    (["smoke", "--set", "classes=[]"], "classes must hold at least one name"),
    (["smoke", "--split", "nowhere.txt"], "nowhere.txt: no such file"),
    (["smoke", "--config", "nowhere.toml"], "nowhere.toml"),
    (["smok"], "METHOD: expected one of smoke, ss3d, roi10d"),
    ([], "METHOD: expected one of smoke, ss3d, roi10d"),
])  # fmt: skip
def test_the_command_line_says_in_one_line_what_is_wrong(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("image_2", "label_2", "calib"):
        (tmp_path / name).mkdir()
    (tmp_path / "label_2" / "000000.txt").write_text("")
    assert main(["train", *arguments, "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").glob("[!.]*"))


@pytest.mark.parametrize("name", METHODS)
def test_help_lists_the_settings_of_a_method(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", name, "--help"]) == 0
    page = capsys.readouterr().out
    assert max(map(len, page.splitlines())) <= 80
    method = get_method(name)
    config, recipe = method.config(), method.recipes["default"]
    for target in (config, recipe):
        for key, value in vars(target).items():
            names = [f"{key}.{inner}" for inner in vars(value)] if hasattr(value, "__dict__") else [key]
            for one in names:
                assert f"\n  {one} (" in page
    heads = [line for line in page.splitlines() if line.startswith("  ") and ", default " in line]
    defaults = [
        head.split(" (")[0].strip() + "=" + head.split("default ")[1].removesuffix(")")
        for head in heads
        if head.endswith(")")
    ]
    known = [one for one in defaults if not one.endswith("=none")]
    assert len(known) > 25
    assert apply_settings((config, recipe), known) == [
        config,
        recipe,
    ]  # a default is written as --set takes it
