"""What docs/cameras.md and docs/data.md say works as it is written there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from monolift import model_zoo
from monolift.cli import main
from monolift.convert import convert
from nuscenes_tables import write_nuscenes
from test_cameras import SAVED

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the reader has: a photograph, a small KITTI folder, nuScenes, an Omni3D and a COCO file."""
    folder = tmp_path_factory.mktemp("guides")
    shutil.copy(model_zoo.EXAMPLE / "example.jpg", folder / "street.jpg")
    for name, kind, file in (
        ("image_2", ".jpg", "example.jpg"),
        ("label_2", ".txt", "label.txt"),
        ("calib", ".txt", "calib.txt"),
    ):
        (folder / "KITTI" / name).mkdir(parents=True)
        shutil.copy(model_zoo.EXAMPLE / file, folder / "KITTI" / name / f"000000{kind}")
    (folder / "val.txt").write_text("000000\n")
    write_nuscenes(folder / "nuscenes")
    convert(folder / "KITTI", "omni3d", folder / "Omni3D_val.json")
    tables = {
        "images": [{"id": 1, "width": 1242, "height": 375, "file_name": "street.jpg"}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 60]}],
    }
    (folder / "instances.json").write_text(json.dumps(tables))
    sized = SAVED.replace("640", "1242").replace("480", "375").replace("430.", "720.")
    (folder / "camera.yaml").write_text(sized.replace("306.19152", "609.6").replace("227.37994", "172.9"))
    return folder


@pytest.mark.parametrize("page", ["cameras.md", "data.md"])
def test_the_commands(
    page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("yaml", reason="PyYAML is the extra [ros]")
    monkeypatch.chdir(workplace)
    commands = [line for block in blocks(page, "bash") for line in block.splitlines() if line.strip()]
    assert len(commands) >= 4
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "monolift"
        assert main(arguments) == 0, (command, capsys.readouterr().err)


@pytest.mark.parametrize("page", ["cameras.md", "data.md"])
def test_the_python(page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    (code,) = blocks(page, "python")
    exec(compile(code, page, "exec"), {})


def test_pictures_and_the_table_of_ways() -> None:
    text = (DOCS / "cameras.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (DOCS / target).exists(), target
    for options in re.findall(r"\| `(--[^`]+)` \|", text):  # each way of the table is one that the verb knows
        assert options.split()[0] in ("--camera", "--calib", "--fov")
