"""What the README says works as it is written there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from monolift.cli import main
from monolift.inference import zoo as model_zoo

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's user has: street.jpg, a small KITTI folder, two splits."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(model_zoo.EXAMPLE / "example.jpg", folder / "street.jpg")
    for name, kind, file in (
        ("image_2", ".jpg", "example.jpg"),
        ("label_2", ".txt", "label.txt"),
        ("calib", ".txt", "calib.txt"),
    ):
        (folder / "KITTI" / name).mkdir(parents=True)
        for number in ("000000", "000001"):
            shutil.copy(model_zoo.EXAMPLE / file, folder / "KITTI" / name / (number + kind))
    (folder / "train.txt").write_text("000000\n")
    (folder / "val.txt").write_text("000001\n")
    return folder


def test_the_commands(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
    assert len(commands) >= 6
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "monolift"
        if arguments[0] == "train":  # as written, but one step of it
            arguments += ["--set", "epochs=1", "--set", "batch_size=1", "--quiet"]
        assert main(arguments) == 0, (command, capsys.readouterr().err)
    for made in (
        "out/demo/demo.png",
        "out/street.png",
        "out/street.json",
        "results/000001.txt",
        "ap.json",
        "runs/smoke/last",
    ):
        assert (workplace / made).exists(), made


def test_the_python(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the commands, whose results it evaluates."""
    monkeypatch.chdir(workplace)
    assert (workplace / "results").is_dir(), "run the whole file"
    (code,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(code, str(README), "exec"), names)
    assert (workplace / "out.png").exists()
    assert len(names["result"]) > 0  # type: ignore[arg-type]
    assert "Car" in capsys.readouterr().out


def test_the_image_and_every_path_are_there() -> None:
    text = README.read_text()
    root = README.parent
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (root / target).exists(), target
    tree = next(block for block in blocks("") if "src/monolift/" in block)
    for line in tree.splitlines():
        if line.startswith("  "):
            for name in re.match(r"  (\S+(?:  \S+\.py)*)", line).group(1).split():  # type: ignore[union-attr]
                assert (root / "src" / "monolift" / name).exists(), name


def test_set_up_is_two_commands_that_make_knows() -> None:
    makefile = (README.parent / "Makefile").read_text()
    (block,) = (b for b in blocks("") if "make demo" in b)
    assert block.split("\n")[:-1] == ["make demo", "make test"]
    for line in block.splitlines():
        assert re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE)
