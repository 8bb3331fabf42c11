"""detect of videos, folders of frames and cameras: tracks, an annotated video, JSON lines, KITTI's tracking format."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fake_detector import FakeDetector
from monolift.cli import main
from monolift.data.sources import frames, input_image
from monolift.inference.model import Model
from monolift.inference.video import open_video
from monolift.viewer.open import open_frames
from street import street

pytest.importorskip("av", reason="PyAV is the extra [video]")
FOUR = "--camera=175,175,155,46.5"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model = Model(FakeDetector().eval(), "fake")
    monkeypatch.setattr(sys.modules["monolift.inference.model"], "load", lambda *_: model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    with open_video(tmp_path / "drive.mp4", 5) as video:
        for _ in range(3):
            video.add(street().resize((310, 94)))
    return tmp_path / "drive.mp4"


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_tracked_video(drive: Path) -> None:
    assert main(["detect", "drive.mp4", FOUR, "--track", "--save", "video,jsonl,tracking", "--quiet"]) == 0
    assert sorted(p.name for p in Path("out").iterdir() if p.suffix != ".log") == [
        "drive.jsonl", "drive.mp4", "drive.txt", "manifest.jsonl"
    ]  # fmt: skip
    rows = lines("out/drive.jsonl")
    assert [row["frame"] for row in rows] == [0, 1, 2]
    assert [row["time"] for row in rows] == pytest.approx([0, 0.2, 0.4])
    assert rows[2]["objects"][0]["track"] == 1 and rows[2]["objects"][0]["speed"] < 3
    assert [line.split()[:3] for line in Path("out/drive.txt").read_text().splitlines()][::2] == [
        [str(k), "1", "Car"] for k in range(3)
    ]
    drawn = list(frames("out/drive.mp4"))
    assert [f.time for f in drawn] == pytest.approx([0, 0.2, 0.4])
    assert drawn[0].image.shape == drawn[2].image.shape and drawn[0].image.shape[1] > 94


def test_by_default_a_video_becomes_a_video_and_an_image_an_image(drive: Path) -> None:
    street().resize((310, 94)).save("street.png")
    assert main(["detect", "drive.mp4", "street.png", FOUR, "--quiet"]) == 0
    assert {p.name for p in Path("out").iterdir()} >= {"drive.mp4", "street.png"}
    assert not Path("out/drive_000000.png").exists()


def test_the_viewer_finds_the_video(drive: Path) -> None:
    assert main(["detect", "drive.mp4", FOUR, "--save", "jsonl", "--json", "all.json", "--quiet"]) == 0
    for file in ("out/drive.jsonl", "all.json"):
        scenes = open_frames(Path(file))
        assert scenes.names == ("drive_000000", "drive_000001", "drive_000002")
        assert scenes.times == pytest.approx((0, 0.2, 0.4))
    assert main(["view", "out/drive.jsonl", "--out", "drive.html", "--quiet"]) == 0
    page = Path("drive.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3 and '"times":[0.0,0.2,0.4]' in page


def test_a_folder_of_frames_in_order_of_their_numbers() -> None:
    Path("seq").mkdir()
    for k in (10, 9, 8):
        street().resize((310, 94)).save(f"seq/frame{k}.png")
    assert main(["detect", "seq", FOUR, "--track", "--save", "jsonl,video", "--fps", "4", "--quiet"]) == 0
    rows = lines("out/seq.jsonl")
    assert [row["name"] for row in rows] == ["frame8", "frame9", "frame10"]
    assert [row["time"] for row in rows] == [0, 0.25, 0.5]
    assert [f.time for f in frames("out/seq.mp4")] == pytest.approx([0, 0.25, 0.5])


def test_a_frame_that_cannot_be_read_is_left_out() -> None:
    Path("seq").mkdir()
    for k in range(3):
        street().resize((310, 94)).save(f"seq/{k}.png")
    Path("seq/1.png").write_bytes(b"")
    assert main(["detect", "seq", FOUR, "--track", "--save", "jsonl", "--quiet"]) == 2
    assert [row["time"] for row in lines("out/seq.jsonl")] == pytest.approx([0, 0.2])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--save", "tracking"], "add --track"),
        (["--save", "vidoe"], "did you mean video?"),
        (["--camera-speed", "3"], "add --track"),
        (["--track", "--camera-speed", "fast"], "camera speed: expected"),
        (["--track", "--fps", "0"], "--fps: expected more than 0"),
        (["--limit", "0"], "--limit: expected 1 or more"),
        (["--save", "video", "--out", "."], "is the video itself"),
    ],
)
def test_wrong_options_are_one_line(
    options: list[str], said: str, drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = drive.read_bytes()
    assert main(["detect", "drive.mp4", FOUR, "--quiet", *options]) == 2
    error = capsys.readouterr().err
    assert said in error and drive.read_bytes() == before


def test_a_sequence_of_images_is_not_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    street().resize((310, 94)).save("0.png")
    assert main(["detect", "0.png", FOUR, "--track", "--resume"]) == 2
    assert "--resume does not go with --track" in capsys.readouterr().err


def test_a_video_is_resumed_as_a_whole(drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["detect", "drive.mp4", FOUR, "--save", "jsonl"]
    assert main(command) == 0
    assert main([*command, "--resume"]) == 0
    assert "1 file done before" in capsys.readouterr().out
    os.unlink("out/drive.jsonl")
    assert main([*command, "--resume"]) == 0
    assert len(lines("out/drive.jsonl")) == 3


@pytest.mark.parametrize("end", [KeyboardInterrupt, None])
def test_a_camera_until_ctrl_c_or_the_limit(end: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.array(street().resize((310, 94)))

    def endless(source: Any) -> Iterator[Any]:
        for k in range(4 if end else 10**6):
            yield input_image(pixels, f"camera_0_{k:06d}", Path(str(source))).__class__(
                f"camera_0_{k:06d}", input_image(pixels).image, Path(str(source)), time=k / 10, frame=k
            )
        if end:
            raise end

    model = sys.modules["monolift.inference.shots"]
    monkeypatch.setattr(model, "frames", endless)
    monkeypatch.setattr(model, "newest", lambda items: items)  # every frame, whatever the speed
    limit = [] if end else ["--limit", "4"]
    assert main(["detect", "0", FOUR, "--track", "--save", "video,jsonl", "--quiet", *limit]) == 0
    assert [row["source"] for row in lines("out/camera_0.jsonl")] == ["camera:0"] * 4
    assert len(list(frames("out/camera_0.mp4"))) == 4


def test_a_drive_that_is_interrupted_leaves_no_half_files(
    drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("monolift.commands.detect_sequence.SequenceWriter.add", stopping)
    assert main(["detect", "drive.mp4", FOUR, "--save", "video,jsonl", "--quiet"]) == 130
    assert not [p for p in Path("out").iterdir() if p.suffix in (".mp4", ".part")]


def test_image_is_a_plain_frame(drive: Path) -> None:
    """What the viewer shows is the frame itself, wherever the slider goes."""
    from monolift.data.video_frames import VideoFrames

    with open_video(Path("grey.mp4"), 5) as video:
        for k in range(12):
            video.add(Image.new("RGB", (64, 64), (20 * k, 20 * k, 20 * k)))
    frame = VideoFrames(Path("grey.mp4"))
    for k in (5, 6, 2, 11, 0, 0):
        assert float(frame.at(k / 5).float().mean()) == pytest.approx(20 * k, abs=3)
