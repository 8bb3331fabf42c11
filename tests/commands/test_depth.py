"""`monolift depth`: training on stereo pairs and video, and depth maps, from the command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monolift.cli import main
from monolift.errors import InputError
from monolift.methods.roi10d.depth import StreamConfig, SuperDepth, load_stream, save_stream
from toy_kitti import write_toy

SIZE = (384, 128)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames with right images (the same images: only that the commands run is tested)."""
    training = (
        write_toy(tmp_path_factory.mktemp("pairs"), ["000000", "000001", "000002"], cars=1, size=SIZE)
        / "training"
    )
    shutil.copytree(training / "image_2", training / "image_3")
    (training / "depth_2").mkdir()
    for file in (training / "calib").iterdir():
        row = next(line for line in file.read_text().splitlines() if line.startswith("P2")).split()[1:]
        row[3] = repr(float(row[3]) - 0.5 * float(row[0]))
        file.write_text(file.read_text() + f"P3: {' '.join(row)}\n")
        known = np.full(SIZE[::-1], 20 * 256, np.uint16)
        Image.fromarray(known).save(training / "depth_2" / f"{file.stem}.png")
    (training / "frames.tsv").write_text(
        "id sequence frame\n" + "".join(f"00000{k} a {k}\n" for k in range(3))
    )
    return training


TINY = ["--width", "96", "--height", "32", "--steps", "2", "--batch", "1", "--quiet"]


@pytest.mark.parametrize("kind", ["stereo", "video"])
def test_training_then_depth_maps(kind: str, root: Path, tmp_path: Path) -> None:
    out, truth = tmp_path / "depth.safetensors", ["--truth", str(root / "depth_2")]
    frames = ["--frames", str(root / "frames.tsv")] if kind == "video" else []
    words = [
        "--data",
        str(root),
        "--out",
        str(out),
        *TINY,
        *frames,
        *truth,
        "--json",
        str(tmp_path / "r.json"),
    ]
    assert main(["depth", "train", *words]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["scenes"] == (1 if kind == "video" else 3)
    assert report["errors"]["scaled"]["abs_rel"] <= report["errors"]["metres"]["abs_rel"] + 1e-9
    words = ["--data", str(root), "--model", str(out), "--out", str(tmp_path / "maps"), "--quiet"]
    assert main(["depth", "predict", *words]) == (
        0 if kind == "stereo" else 2
    )  # a video's unit is not the metre
    if kind == "video":
        assert main(["depth", "predict", *words, *truth]) == 0
    maps = [np.asarray(Image.open(tmp_path / "maps" / f"00000{k}.png")) for k in range(3)]
    assert all(one.shape == SIZE[::-1] and one.dtype == np.uint16 for one in maps)
    if kind == "stereo":  # two steps from the start at 25 m
        assert 15 < float(np.median(maps[0])) / 256 < 40
    else:  # scaled by the truth
        assert float(np.median(maps[0])) / 256 == pytest.approx(20, rel=0.2)
    assert main(["depth", "predict", *words, *truth]) == 2  # the folder is there


def test_the_largest_seed_trains(root: Path, tmp_path: Path) -> None:
    words = ["--data", str(root), "--out", str(tmp_path / "depth.safetensors"), *TINY]
    assert main(["depth", "train", *words, "--seed", str(2**63 - 1)]) == 0


def test_the_bundled_detector_has_a_stream(root: Path, tmp_path: Path) -> None:
    assert main(["depth", "predict", "--data", str(root), "--out", str(tmp_path / "maps"), "--quiet"]) == 0
    assert len(list((tmp_path / "maps").glob("*.png"))) == 3


def test_what_cannot_be_used_is_named(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["train", "--out", str(tmp_path / "d")], "--data: expected a KITTI folder, or --pairs"),
        (["predict", "--out", str(tmp_path / "d")], "--data: expected a KITTI folder"),
        (["train", "--out", str(tmp_path / "d"), "--data", str(root), "--scales", "4"], "scales"),
        (["train", "--out", str(tmp_path / "d"), "--data", str(root), "--seed", "-1"], "seed"),
        (["train", "--out", str(tmp_path / "d"), "--data", str(tmp_path / "x")], "no such file or folder"),
        (
            ["predict", "--out", str(tmp_path / "d"), "--data", str(root), "--model", "ss3d"],
            "expected a depth stream or a roi10d",
        ),
        (["train", "--out", str(tmp_path), "--data", str(root)], "is a folder: expected the name of a file"),
        (
            ["train", "--out", str(tmp_path / "d"), "--data", str(root), "--truth", str(root / "calib")],
            "calib: no depth map of any of the 3 images",
        ),
        (
            [
                "train",
                "--out",
                str(tmp_path / "d"),
                "--data",
                str(root),
                "--split",
                str(root / "frames.tsv"),
                "--frames",
                str(root / "frames.tsv"),
            ],
            "--split: chooses right images of --data",
        ),
    ):
        assert main(["depth", *words]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "d").exists()  # before any step of a training


@pytest.mark.parametrize("changes", [{"width": 100}, {"focal": float("nan")}, {"encoder": "given"}])
def test_a_stream_file_with_other_values_is_named(changes: dict[str, object], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = tmp_path / "depth.safetensors"
    save_stream(file, SuperDepth("small", False), StreamConfig())
    header = {"depth_stream": json.dumps({**asdict(StreamConfig()), **changes})}
    save_file(load_file(file), file, header)
    with pytest.raises(InputError, match=f"depth.safetensors: not a depth stream .*{next(iter(changes))}"):
        load_stream(file)


def test_images_that_cannot_be_used_are_reported_and_the_others_done(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream, copy = tmp_path / "depth.safetensors", tmp_path / "copy"
    save_stream(
        stream, SuperDepth("small", False), StreamConfig(width=96, height=32, focal=100.0, metric=True)
    )
    shutil.copytree(root, copy)
    cut = copy / "image_2" / "000001.png"
    cut.write_bytes(cut.read_bytes()[:-200])
    (copy / "calib" / "000002.txt").unlink()
    words = ["depth", "predict", "--data", str(copy), "--model", str(stream), "--quiet"]
    report = tmp_path / "r.json"
    truth = ["--truth", str(root / "depth_2")]
    assert main([*words, "--out", str(tmp_path / "maps"), "--json", str(report), *truth]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("monolift: ")]
    assert len(lines) == 2 and "000002.txt" in lines[0] and "000001.png" in lines[1]
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["000000.png"]
    said = json.loads(report.read_text())
    assert said["images"] == 1 and sorted(said["failed"]) == ["000001", "000002"]
    (copy / "image_2" / "000000.png").write_bytes(b"")
    assert main([*words, "--out", str(tmp_path / "none")]) == 2
    assert "(and 2 more: no image can be used)" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_ids_without_a_right_image_are_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = tmp_path / "split.txt"
    split.write_text("000000\n000007\n")
    words = ["--data", str(root), "--out", str(tmp_path / "depth.safetensors"), *TINY, "--split", str(split)]
    assert main(["depth", "train", *words]) == 0
    assert f"{split}: no right image of 1 ids, which are left out: 000007" in capsys.readouterr().err
