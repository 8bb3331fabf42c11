"""``monolift shapes`` and ``monolift augment`` from the command line: what they leave behind, and how they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from monolift.cli import main
from monolift.data.kitti import KittiDataset
from monolift.render.glb import read_glb
from monolift.render.mesh import icosphere
from monolift.shapes.autoencoder import load_shape_space
from toy_kitti import write_toy


def write_ball(path: Path, stretch: float) -> None:
    """A watertight OBJ file, longer towards +z, glTF's front."""
    vertices, faces = icosphere(1)
    lines = [f"v {x} {y} {stretch * z}" for x, y, z in vertices.tolist()]
    lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces.tolist()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))


def test_a_space_of_ones_own_meshes(tmp_path: Path) -> None:
    for kind, stretch in (("short", 1.5), ("long", 2.5)):
        write_ball(tmp_path / "meshes" / kind / "ball.obj", stretch)
    out = tmp_path / "space.safetensors"
    words = [
        "shapes",
        "build",
        "--out",
        str(out),
        "--meshes",
        str(tmp_path / "meshes"),
        "--steps",
        "2",
        "--quiet",
    ]
    assert main([*words, "--json", str(tmp_path / "report.json")]) == 0
    space = load_shape_space(out)
    assert list(space.medians) == ["all", "long", "short"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["cars"] == 2
    assert 0 <= report["iou"] <= 1


def test_the_bundled_space_is_shown(tmp_path: Path) -> None:
    assert main(["shapes", "show", "--out", str(tmp_path / "shown"), "--quiet"]) == 0
    with Image.open(tmp_path / "shown" / "tsdf.png") as image:
        colours = image.convert("RGB").resize((50, 30)).getdata()
    assert len(set(colours)) > 50
    medians = read_glb(tmp_path / "shown" / "tsdf_medians.glb")
    assert len(medians) == 5
    lengths = [float(m.vertices[:, 0].max() - m.vertices[:, 0].min()) for m in medians]
    assert lengths == pytest.approx([3.88, 3.42, 3.87, 4.32, 4.17], abs=1e-3)


def test_an_augmented_set_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = write_toy(tmp_path / "toy", ["000000", "000001"], cars=2)
    words = ["augment", "--data", str(toy), "--out", str(tmp_path / "out"), "--per-image", "1", "--seed", "3"]
    assert main([*words, "--quiet", "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["made"] == 2
    assert len(KittiDataset(tmp_path / "out")) == 2
    assert sum(len(s) for s in KittiDataset(tmp_path / "out")) == 4 + report["pasted"]
    assert main([*words, "--quiet", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["augment", "--data", "nowhere", "--out", "x"], "nowhere: no such file"),
        (["augment", "--data", ".", "--out", "x", "--copies", "0"], "--copies: expected 1 or more, got 0"),
        (["augment", "--data", ".", "--out", "x", "--device", "abacus"], "device 'abacus': not usable here"),
        (
            ["shapes", "show", "--out", "x", "--model", "nothing.safetensors"],
            "nothing.safetensors: no such file",
        ),
        (["shapes", "build", "--out", "x", "--steps", "0"], "--steps: expected 1 or more, got 0"),
        (
            ["shapes", "build", "--out", "x", "--kind", "textured", "--preset", "paper"],
            "needs --meshes",
        ),
        (
            ["shapes", "build", "--out", "x", "--kind", "textured", "--meshes", "."],
            "expected two or more models",
        ),
        (
            ["shapes", "build", "--out", "x", "--kind", "textured", "--meshes", ".", "--axes", "up"],
            "axes: expected front and up",
        ),
        (["shapes", "build", "--out", "x", "--meshes", "."], "expected two or more meshes"),
        (["shapes", "build", "--out", "."], ".: is a folder: expected the name of a file"),
        (["shapes", "show", "--out", __file__], "expected a folder, or nothing yet, got a file"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()
