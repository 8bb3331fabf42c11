"""The commands of docs/viewer.md work as they are written there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from monolift.cli import main
from monolift.inference import zoo as model_zoo
from monolift.viewer.server import ViewerServer
from viewer_scenes import toy_world

PAGE = Path(__file__).parents[2] / "docs" / "viewer.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an image and labels to review; servers end at once, as with Ctrl+C."""

    def ended(server: ViewerServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ViewerServer, "serve_forever", ended)
    shutil.copy(model_zoo.EXAMPLE / "example.jpg", tmp_path / "street.jpg")
    toy_world(tmp_path / "found_labels", 1)
    return tmp_path


def test_the_commands(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in [line for block in blocks("bash") for line in block.splitlines()]:
        program, *arguments = shlex.split(command)
        assert program == "monolift"
        assert main(arguments) == 0, (command, capsys.readouterr().err)
    assert (workplace / "scenes.html").stat().st_size > 600_000
    assert capsys.readouterr().out.count("http://127.0.0.1:") == 4


def test_the_python(workplace: Path) -> None:
    (code,) = blocks("python")
    exec(compile(code, str(PAGE), "exec"), {})
    assert "<title>street</title>" in (workplace / "street.html").read_text("utf-8")


def test_its_images_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text("utf-8")):
        assert (PAGE.parent / target).exists(), target
