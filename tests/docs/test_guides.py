"""What docs/ says works as it is written there: every command and every Python block is run, or marked with the reason why not.

A block that needs hours, a GPU or data of one's own stands behind ``<!-- not run: the reason -->``; its commands must still be
ones that the command line knows, options and all.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from camera_files import SAVED
from monolift.cli import SUBCOMMANDS, class_name, main, module_name
from monolift.data.formats.convert import convert
from monolift.inference import zoo as model_zoo
from monolift.inference.video import open_video
from nuscenes_tables import write_nuscenes

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ELSEWHERE = {"viewer.md"}  # whose blocks tests/viewer/test_guide.py runs
PAGES = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
COMMANDS = ("bash", "sh", "console")
SERVICE = "http://127.0.0.1:8000"  # as written in docs/serve.md
# As written, but less of it: of an option that is given twice the last counts.
SMALLER = {
    "synth": ["--images", "1", "--width", "416", "--height", "128", "--quiet"],
    "train": ["--set", "epochs=1", "--set", "batch_size=1", "--set", 'classes=["Car"]', "--quiet"],
    "autolabel": ["--set", "iterations=2", "--quiet"],
}

MORE = {("tutorials/synthetic.md", "synth"): ["--images", "2"]}  # one to train on, one to validate


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and why it is not run, if it is not."""

    language: str
    text: str
    reason: str | None

    @property
    def file(self) -> str | None:
        """The file that the block is to be saved as, which its first line names."""
        name = self.text.partition("\n")[0].removeprefix("# ")
        return name if name.isascii() and name.endswith(".py") and " " not in name else None

    @property
    def commands(self) -> list[list[str]]:
        joined = self.text.replace("\\\n", " ")
        words = [shlex.split(line.removeprefix("$ "), comments=True) for line in joined.splitlines()]
        return [one for one in words if one]


def blocks(page: str) -> list[Block]:
    fenced = r"^(?:<!-- not run: ([^\n]+?) -->\n+)?^```([a-z]*)\n(.*?)^```$"
    found = re.findall(fenced, (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    return [Block(language, text, reason or None) for reason, language, text in found]


def is_run(page: str) -> bool:
    return any(b.language in (*COMMANDS, "python") and not b.reason for b in blocks(page))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the reader has: an image and its calibration, KITTI's layout, results, nuScenes, Omni3D, COCO."""
    folder = tmp_path
    shutil.copy(model_zoo.EXAMPLE / "example.jpg", folder / "street.jpg")
    shutil.copy(model_zoo.EXAMPLE / "calib.txt", folder / "calib.txt")
    (folder / "street.csv").write_text("image,class,x1,y1,x2,y2,score\nstreet.jpg,Car,690,172,760,222,0.93\n")
    (folder / "fisheye.yaml").write_text(
        "distortion_model: equidistant\ndistortion_coeffs: [-0.02, 0.01, -0.003, 0.0005]\n"
        "intrinsics: [600, 600, 620.5, 187]\nresolution: [1242, 375]\n"
    )
    _write_drive(folder)
    for root in (folder / "KITTI", folder / "training"):
        for name, kind, file in (
            ("image_2", ".jpg", "example.jpg"),
            ("label_2", ".txt", "label.txt"),
            ("calib", ".txt", "calib.txt"),
        ):
            (root / name).mkdir(parents=True)
            for number in ("000000", "000001"):
                shutil.copy(model_zoo.EXAMPLE / file, root / name / (number + kind))
    shutil.copytree(folder / "training", folder / "ROOT" / "training")
    for number, split in (("000000", "train.txt"), ("000001", "val.txt")):
        (folder / split).write_text(f"{number}\n")
        (folder / "ROOT" / "ImageSets").mkdir(exist_ok=True)
        (folder / "ROOT" / "ImageSets" / split).write_text(f"{number}\n")
    shutil.copytree(folder / "training" / "label_2", folder / "label_2")
    rows = (model_zoo.EXAMPLE / "label.txt").read_text().splitlines()
    for results in ("results", "runs/a", "runs/b", "runs/c", "runs/d"):
        (folder / results).mkdir(parents=True)
        scored = "".join(f"{row} {0.9 - 0.05 * k:.2f}\n" for k, row in enumerate(rows))
        (folder / results / "000001.txt").write_text(scored)
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
    monkeypatch.chdir(folder)
    return folder


def _write_drive(folder: Path) -> None:
    """drive.mp4: two frames of a street."""
    pytest.importorskip("av", reason="PyAV is the extra [video]")
    with open_video(folder / "drive.mp4", 10) as video, Image.open(folder / "street.jpg") as image:
        video.add(image)
        video.add(image)


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """The address of ``monolift serve``."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("fastapi")
    from monolift.inference.model import load
    from monolift.serve import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(load("smoke", "cpu")), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE and is_run(page)])
def test_the_blocks(
    page: str,
    workplace: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The blocks of a page one after the other, as a reader would type them."""
    to_run = [block for block in blocks(page) if not block.reason]
    names: dict[str, object] = {}
    for extra in ("yaml", "onnxruntime"):
        pytest.importorskip(extra)
    for block in to_run:
        if block.language == "python" and block.file:
            (workplace / block.file).write_text(block.text)
            monkeypatch.syspath_prepend(str(workplace))
            importlib.import_module(Path(block.file).stem)
        elif block.language == "python":
            exec(compile(block.text, page, "exec"), names)
        elif block.language in COMMANDS:
            for program, *arguments in block.commands:
                if program == "curl":
                    answer(arguments, request.getfixturevalue("service"))
                    continue
                assert program == "monolift", f"{page}: only monolift and curl are run: mark {program}"
                arguments, target = redirected(arguments)
                if target:
                    capsys.readouterr()
                small = [*arguments, *SMALLER.get(arguments[0], []), *MORE.get((page, arguments[0]), [])]
                assert main(small) == 0, (page, arguments, capsys.readouterr().err)
                if target:
                    (workplace / target).write_text(capsys.readouterr().out)


def redirected(arguments: list[str]) -> tuple[list[str], str]:
    """The arguments before ``> FILE``, and the file; "" without."""
    if ">" not in arguments:
        return arguments, ""
    at = arguments.index(">")
    (target,) = arguments[at + 1 :]
    return arguments[:at], target


def answer(arguments: list[str], address: str) -> None:
    """Runs curl against the service, wherever it listens."""
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        *(a.replace(SERVICE, address) for a in arguments),
    ]
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == 0, (arguments, done.stderr.decode())
    assert done.stdout or Path(arguments[-1]).stat().st_size > 0


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_run_is_at_least_known(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in marked blocks parse; other programs are files, targets and extras of this repository."""
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, page, "exec")
        for program, *arguments in block.commands if block.language in COMMANDS and block.reason else []:
            if program == "monolift":
                assert parses(redirected(arguments)[0], monkeypatch), (page, arguments)
            elif program == "make":
                assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), (
                    arguments
                )
            elif program == "python":
                module = arguments[1].replace(".", "/") if arguments[0] == "-m" else ""
                files = [f"{module}.py", f"{module}/__main__.py"] if module else [arguments[0]]
                assert any((ROOT / file).is_file() for file in files), arguments


def parses(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the command line accepts it; nothing is done."""
    monkeypatch.setattr(f"{module_name(arguments[0])}.run", lambda options: 0)
    try:
        return main(arguments) == 0
    except SystemExit as end:
        return not end.code


@pytest.mark.parametrize("page", PAGES)
def test_subcommands_options_and_extras_in_the_text(page: str) -> None:
    """``monolift SUBCOMMAND --option`` in a sentence names what exists, ``monolift[extra]`` an extra."""
    text = (DOCS / page).read_text()
    for line in re.findall(r"`monolift ([^`]+)`", text):
        subcommand, *rest = line.split()
        if subcommand == "SUBCOMMAND" or subcommand.startswith("--"):
            continue
        assert subcommand in SUBCOMMANDS, (page, line)
        options = getattr(importlib.import_module(module_name(subcommand)), class_name(subcommand))
        known = {field.name.replace("_", "-") for field in dataclasses.fields(options)} | {"help", "set"}
        for word in rest:
            if word.startswith("--"):
                assert word.removeprefix("--").split("=")[0] in known, (page, line)
    extras = (ROOT / "pyproject.toml").read_text()
    for extra in re.findall(r"monolift\[([a-z]+)\]", text):
        assert re.search(rf"^{extra} = \[", extras, re.MULTILINE), (page, extra)
    for block in blocks(page):  # a command in a block without a language would be neither run nor marked
        if block.language not in COMMANDS:
            assert not re.search(r"^(\$ )?(monolift|python|pip|make|curl) ", block.text, re.MULTILINE), block


@pytest.mark.parametrize("page", PAGES)
def test_links_and_images_are_there(page: str) -> None:
    """Every link to another page, to a heading of one, and to an image."""
    text = re.sub(r"^```.*?^```$", "", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (DOCS / page).parent / name if name else DOCS / page
        assert file.is_file(), (page, target)
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, (page, target)


def slug(heading: str) -> str:
    """A heading's anchor, as Python-Markdown's toc makes it."""
    words = re.sub(r"[^\w\s-]", "", heading).strip().lower()
    return re.sub(r"[-\s]+", "-", words)


@pytest.mark.parametrize("page", PAGES)
def test_no_gap_is_left(page: str) -> None:
    """A table that was to be filled in."""
    assert not re.search(r"^@?[A-Z0-9]{4,}@?$", (DOCS / page).read_text(), re.MULTILINE)


def test_every_page_is_in_the_navigation_and_every_image_is_shown() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    assert sorted(re.findall(r"(\S+\.md)$", text, re.MULTILINE)) == sorted(PAGES)  # each once
    sections = re.findall(r"^  - (.+):$", text, re.MULTILINE)
    assert len(sections) == len(set(sections))
    texts = "".join((DOCS / page).read_text() for page in PAGES) + (ROOT / "README.md").read_text()
    for image in (DOCS / "images").iterdir():
        assert f"images/{image.name}" in texts, image.name
        assert image.stat().st_size < (500_000 if image.suffix == ".gif" else 300_000), image.name


def test_the_changelog_has_whole_entries_each_once() -> None:
    """A merge that keeps both sides leaves lines twice, or behind another entry."""
    unreleased = (ROOT / "CHANGELOG.md").read_text().split("## Unreleased\n")[1].split("\n## ")[0]
    for section in re.split(r"^### .+\n", unreleased, flags=re.MULTILINE)[1:]:
        assert "\n\n" not in section.strip()
        entries = re.split(r"^- ", section.strip(), flags=re.MULTILINE)[1:]
        assert entries and all(entry.rstrip().endswith(".") for entry in entries)
    lines = [line for line in unreleased.splitlines() if line]
    assert len(lines) == len(set(lines))


def test_the_reference_names_what_exists() -> None:
    """Every ``::: monolift.module.Name`` of the reference."""
    for page in (DOCS / "reference").glob("*.md"):
        for dotted in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE):
            module, name = dotted, ""
            try:
                importlib.import_module(module)
            except ModuleNotFoundError:
                module, _, name = dotted.rpartition(".")
                assert hasattr(importlib.import_module(module), name), dotted


def test_the_table_of_ways_to_say_a_camera() -> None:
    for options in re.findall(r"\| `(--[^`]+)` \|", (DOCS / "cameras.md").read_text()):
        assert options.split()[0] in ("--camera", "--calib", "--fov")
