"""The command line: help, results, exit codes, and one clear line for everything that is wrong with the input."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tyro
from PIL import Image

import monolift.commands
import monolift.inference.model
from fake_detector import FakeDetector
from monolift.cli import SUBCOMMANDS, class_name, main, module_name
from monolift.data.sources import InputImage
from monolift.inference.model import Model
from monolift.inference.results import Results3D
from street import street

FOUR = "--camera=700,700,620.5,187"
P2 = "P2: 700 0 620.5 0 0 700 187 0 0 0 1 0\n"
JOB = ["detect.log", "manifest.jsonl"]
CAR = "Car 0.00 0 -1.57 599.50 169.50 663.50 219.50 1.50 1.60 4.00 0.40 1.70 21.00 0.30"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model that is asked for is the fake one."""
    monkeypatch.setattr(
        sys.modules["monolift.inference.model"], "load", lambda *_: Model(FakeDetector().eval(), "fake")
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with photos/a.png and photos/b.png."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    street(names=("Car",)).save(tmp_path / "photos" / "a.png")
    street(names=("Pedestrian",)).save(tmp_path / "photos" / "b.png")
    return tmp_path


# -- help -----------------------------------------------------------------------------------------------------------------


def test_every_subcommand_has_a_file_and_every_file_a_subcommand() -> None:
    shared = [
        "detect_job",
        "detect_sequence",
        "names",
        "option",
        "output",
        "processes",
        "settings_page",
    ]  # what several of them share, and parts of detect and train
    assert sorted([*(one.replace("-", "_") for one in SUBCOMMANDS), *shared]) == sorted(
        m.name for m in pkgutil.iter_modules(monolift.commands.__path__)
    )


def test_help_lists_the_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {subcommand} " in text for subcommand in SUBCOMMANDS)


def example_of(subcommand: str) -> tuple[Any, str]:
    """The subcommand's options and the command line that its help shows."""
    module = importlib.import_module(module_name(subcommand))
    options = getattr(module, class_name(subcommand))
    example = inspect.cleandoc(options.__doc__).partition("\n\n")[2].removeprefix("Example:").strip()
    return options, example


@pytest.mark.parametrize("subcommand", sorted(SUBCOMMANDS))
def test_the_example_in_help_is_accepted_as_written(
    subcommand: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main([subcommand, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "example:" in shown and "None" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    options, example = example_of(subcommand)
    for text in re.findall(r'^    """(.*?)"""', inspect.getsource(options), re.MULTILINE | re.DOTALL)[1:]:
        assert "\n" not in text  # help would break the line there
    program, named, *arguments = shlex.split(example)
    assert (program, named) == ("monolift", subcommand)
    tyro.cli(options, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))


def test_help_needs_no_torch() -> None:
    """Start-up stays quick because nothing heavy is imported before it is needed."""
    helps = [[subcommand, "--help"] for subcommand in SUBCOMMANDS]
    script = (
        "import sys\nfrom monolift.cli import main\n"
        f"for arguments in [['--help'], ['--version'], ['models'], *{helps!r}]:\n"
        "    try:\n        main(arguments)\n    except SystemExit:\n        pass\n"
        "heavy = {'torch', 'PIL', 'rich.progress'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_mistyped_subcommand_or_option_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["detcet"]) == 2
    assert "did you mean detect?" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["detect", "a.png", "--sav", "image"])
    assert stop.value.code == 2
    assert "--save" in capsys.readouterr().err


@pytest.mark.parametrize("subcommand", sorted(SUBCOMMANDS))
def test_every_subcommand_suggests_the_nearest_option(
    subcommand: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*shlex.split(example_of(subcommand)[1])[1:], "--quite"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "--quiet" in error and f"monolift {subcommand} --help" in error


SOURCES = sorted(Path(monolift.commands.__path__[0]).parent.rglob("*.py"))


def test_every_extra_that_is_named_can_be_installed() -> None:
    """`pip install "monolift[x]"` of every message is an extra of pyproject.toml."""
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    table = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", table, re.MULTILINE))
    named = {
        (path.name, extra)
        for path in SOURCES
        for extra in re.findall(r'MissingExtraError\([^()]*"(\w+)"\s*\)|monolift\[(\w+)\]', path.read_text())
    }
    found = {(name, "".join(pair)) for name, pair in named}
    assert {"video", "tensorboard", "ros", "hub"} <= {extra for _, extra in found}
    assert not {(name, extra) for name, extra in found if extra not in extras}


def test_only_one_module_can_download() -> None:
    """What opens connections of its own accord, or installs, is imported nowhere but in checkpoint.from_hub."""
    pattern = re.compile(
        r"^\s*(?:import|from) (urllib\.request|requests|httpx|aiohttp|huggingface_hub|torch\.hub|pip|ensurepip)\b",
        re.MULTILINE,
    )
    found = {(path.name, name) for path in SOURCES for name in pattern.findall(path.read_text())}
    assert found == {("checkpoint.py", "huggingface_hub")}


# -- detect ---------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake")
def test_detect_shows_a_table_and_saves_every_format(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["detect", "photos/a.png", FOUR, "--save", "kitti,json,image", "--json", "all.json"]) == 0
    text = capsys.readouterr().out
    assert "Car" in text and "dist m" in text and "1 object in 1 image; 3 files in out" in text
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["a.json", "a.png", "a.txt"]
    assert (folder / "out" / "a.txt").read_text().startswith("Car -1 -1 ")
    results = json.loads((folder / "all.json").read_text())
    assert results[0] == json.loads((folder / "out" / "a.json").read_text())
    with Image.open(folder / "out" / "a.png") as image:
        assert image.height > 376


@pytest.mark.usefixtures("fake", "folder")
def test_json_on_standard_output_is_nothing_but_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "photos", FOUR, "--save", "none", "--json", "-"]) == 0
    assert [r["objects"][0]["class"] for r in json.loads(capsys.readouterr().out)] == ["Car", "Pedestrian"]


@pytest.mark.usefixtures("fake", "folder")
def test_only_the_classes_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "photos", FOUR, "--classes", "Car", "--save", "none", "--json", "-"]) == 0
    assert [len(r["objects"]) for r in json.loads(capsys.readouterr().out)] == [1, 0]


@pytest.mark.usefixtures("fake")
def test_a_folder_goes_on_after_a_bad_file_and_counts_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "photos" / "aa.png").write_bytes(b"")
    assert main(["detect", "photos", FOUR, "--save", "kitti"]) == 2
    captured = capsys.readouterr()
    assert "aa.png: not a readable image: empty file (0 bytes)" in captured.err
    assert "2 objects in 2 images; 1 of 3 files failed" in captured.out
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["a.txt", "b.txt", *JOB]


@pytest.mark.usefixtures("fake")
def test_quiet_says_nothing_but_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "photos", FOUR, "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""
    (folder / "photos" / "aa.png").write_bytes(b"")
    assert main(["detect", "photos", "--quiet"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2  # the guessed camera, said once for the folder, and the empty file
    assert "distances scale" in lines[0] and "aa.png" in lines[1]


@pytest.mark.usefixtures("fake")
def test_images_of_one_name_do_not_overwrite_each_other(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "more").mkdir()
    street().save(folder / "more" / "a.png")
    assert main(["detect", "photos/a.png", "more/a.png", FOUR]) == 2
    assert "photos/a.png has the same name" in capsys.readouterr().err
    assert main(["detect", "photos/a.png", FOUR, "--out", "photos"]) == 2
    assert "is the image itself" in capsys.readouterr().err


@pytest.mark.usefixtures("fake")
def test_an_unexpected_exception_of_one_file_is_named_and_the_others_are_done(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    street().save(folder / "photos" / "aa.png")
    read = monolift.inference.shots.read_input_image

    def breaks(path: Path) -> InputImage:
        if path.name == "aa.png":
            raise OverflowError("of a kind that nobody thought of\nand more")
        return read(path)

    monkeypatch.setattr("monolift.inference.shots.read_input_image", breaks)
    assert main(["detect", "photos", FOUR, "--save", "kitti", "--json", "all.json", "--batch", "2"]) == 2
    captured = capsys.readouterr()
    assert "photos/aa.png: OverflowError: of a kind that nobody thought of\n" in captured.err
    assert "2 objects in 2 images; 1 of 3 files failed" in captured.out
    rows = json.loads((folder / "all.json").read_text())
    assert [row.get("name") for row in rows] == ["a", None, "b"]
    assert rows[1]["error"].startswith("photos/aa.png: OverflowError")
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["a.txt", "b.txt", *JOB]


@pytest.mark.usefixtures("fake")
def test_a_image_whose_files_cannot_be_written_does_not_end_the_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "out" / "a.txt").mkdir(parents=True)
    (folder / "out" / "a.txt" / "kept").write_text("a folder where the file should be")
    assert main(["detect", "photos", FOUR, "--save", "kitti", "--json", "all.json"]) == 2
    assert "out/a.txt" in capsys.readouterr().err
    assert [("error" in row) for row in json.loads((folder / "all.json").read_text())] == [True, False]
    assert (folder / "out" / "b.txt").is_file()


@pytest.mark.usefixtures("fake")
def test_json_holds_what_is_done_when_the_job_is_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = Results3D.save_kitti

    def stopped(result: Results3D, path: Path) -> None:
        if result.name == "b":
            raise KeyboardInterrupt
        save(result, path)

    monkeypatch.setattr(Results3D, "save_kitti", stopped)
    assert main(["detect", "photos", FOUR, "--save", "kitti", "--json", "all.json"]) == 130
    assert [row["name"] for row in json.loads((folder / "all.json").read_text())] == ["a"]
    capsys.readouterr()


@pytest.mark.usefixtures("fake")
def test_a_place_that_cannot_be_written_is_found_before_the_first_image(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("nothing is loaded before the folder is known to be writable")

    monkeypatch.setattr("monolift.inference.model.load", never)
    (folder / "file").write_text("")
    for arguments in (("--out", "file/out"), ("--save", "none", "--json", "file/all.json")):
        line = complaint(capsys, "detect", "photos", FOUR, *arguments)
        assert "file" in line and "cannot write" in line
    assert not (folder / "out").exists()


# -- bad input: exit code 2 and one line that says where, what was expected and what came ----------------------------------


def dataset(folder: Path, label: str = CAR, calib: str = P2) -> None:
    for name in ("image_2", "label_2", "calib"):
        (folder / "data" / name).mkdir(parents=True)
    street().save(folder / "data" / "image_2" / "000001.png")
    (folder / "data" / "label_2" / "000001.txt").write_text(label + "\n")
    (folder / "data" / "calib" / "000001.txt").write_text(calib)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("monolift: ")
    return lines[0]


@pytest.mark.usefixtures("fake")
def test_bad_images_and_cameras(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "text.jpg").write_text("not an image")
    (folder / "calib").mkdir()
    (folder / "calib" / "a.txt").write_text(P2.replace("620.5", "nan"))
    (folder / "calib" / "short.txt").write_text("P2: 1 2 3\n")
    quiet = ("--save", "none", "--quiet")

    def said(*arguments: str) -> str:
        return complaint(capsys, "detect", *arguments, *quiet)

    assert "text.jpg: not a readable image" in said("text.jpg", FOUR)
    assert "missing.png: no such file" in said("missing.png", FOUR)
    assert "matches no file" in said("*.webp", FOUR)
    assert "nothing to look at" in said()
    assert "b.txt: no calibration for image b" in said("photos/b.png", "--calib", "calib")
    assert "calib/a.txt:1: P2, number 3: expected a finite number, got 'nan'" in said(
        "photos/a.png", "--calib", "calib"
    )
    assert "short.txt:1: P2: expected 12 numbers, got 3" in said("photos/a.png", "--calib", "calib/short.txt")
    assert "nowhere: no such calibration" in said("photos/a.png", "--calib", "nowhere")
    assert "expected fx,fy,cx,cy" in said("photos/a.png", "--camera", "700")
    assert "not in millimetres" in said("photos/a.png", "--camera", "26,26,620,187")
    assert "does not fit an image of 1242 x 376" in said("photos/a.png", "--camera", "2000,2000,1920,1080")
    assert "expected one of camera, calib and fov" in said("photos/a.png", FOUR, "--fov", "70")
    assert "this model knows Car, Pedestrian, got Unicorn" in said(
        "photos/a.png", FOUR, "--classes", "Car,Unicorn"
    )
    assert "from 0 to 1, got 25" in said("photos/a.png", FOUR, "--score", "25")


@pytest.mark.usefixtures("folder")
def test_formats_that_are_not_there_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(capsys, "detect", "photos", "--save", "image,html5")
    assert (
        "--save: expected kitti, json, image, html, glb, omni3d, video, jsonl, tracking or none, got html5; did you mean html?"
        in line
    )


def test_bad_checkpoints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(model: str) -> str:
        return complaint(capsys, "detect", "photos/a.png", FOUR, "--model", model)

    checkpoint = folder / "model"
    checkpoint.mkdir()
    assert "not a checkpoint: expected a folder with config.json" in said("model")
    (checkpoint / "config.json").write_text("{")
    assert "config.json: not a readable checkpoint description" in said("model")
    (checkpoint / "config.json").write_text('{"format": 7, "method": "smoke", "config": {}}')
    assert "expected checkpoint format 1, got 7" in said("model")
    (checkpoint / "config.json").write_text('{"format": 1, "method": "spoke", "config": {}}')
    assert "method must be one of smoke" in said("model")
    (checkpoint / "config.json").write_text('{"format": 1, "method": "smoke", "config": {}}')
    assert "model.safetensors: missing" in said("model")
    (checkpoint / "model.safetensors").write_bytes(b"nonsense")
    assert "model.safetensors: not a readable weight file" in said("model")
    assert "no model 'nothing'" in said("nothing")


def test_bad_training_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset(folder, label=CAR.rsplit(" ", 1)[0])
    train = ("train", "smoke", "--out", "run", "--data")
    assert "label_2/000001.txt:1: expected 15 fields (or 16 with a score), got 14" in complaint(
        capsys, *train, "data"
    )
    assert "photos: expected a KITTI folder" in complaint(capsys, *train, "photos")
    assert "nowhere: no such file or folder" in complaint(capsys, *train, "nowhere")
    (folder / "data" / "label_2" / "000001.txt").write_text(CAR)
    unknown = complaint(capsys, *train, "data", "--set", 'classes=["Unicorn"]')
    assert "Unicorn" in unknown
    assert "did you mean epochs?" in complaint(capsys, *train, "data", "--set", "epoch=3")
    spoke = complaint(capsys, "train", "spoke", *train[2:], "data")
    assert "METHOD: expected one of smoke" in spoke and "got 'spoke'" in spoke
    (folder / "data" / "calib" / "000001.txt").write_text(P2.replace("187", "nan"))
    assert "calib/000001.txt:1: P2" in complaint(capsys, *train, "data")
    assert not (folder / "run" / "last").exists()


def test_bad_results_to_evaluate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset(folder)
    (folder / "results").mkdir()
    (folder / "results" / "000001.txt").write_text(" ".join(CAR.split()[:14]) + "\n")
    line = complaint(capsys, "evaluate", "--labels", "data/label_2", "--predictions", "results")
    assert "000001.txt:1" in line and "got 14" in line


def test_interrupting_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("monolift.cli._run", interrupted)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "monolift: interrupted; finished files are complete\n"


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["detect", "photos/a.png", "--fov", "nan"], "--fov"),
        (["detect", "photos", "--fov", "inf"], "--fov"),
        (["detect", "photos/a.png", "--fov", "70", "--score", "nan"], "--score"),
        (["serve", "--max-seconds", "nan"], "--max-seconds"),
        (["serve", "--max-seconds", "inf"], "--max-seconds"),
    ],
)
def test_an_option_must_be_a_finite_number(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], option: str
) -> None:
    """nan is neither below nor above a limit: the service would have started with it."""
    before = sorted(folder.rglob("*"))
    assert f"{option}: expected a finite number, got {arguments[-1]}" in complaint(capsys, *arguments)
    assert sorted(folder.rglob("*")) == before
