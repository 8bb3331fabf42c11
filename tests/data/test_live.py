"""Cameras and streams: what names one, what is shown of it, what happens where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from monolift.data.live import LiveSource, live_source
from monolift.data.sources import expand, frames, is_video
from monolift.errors import InputError


@pytest.mark.parametrize(
    ("text", "address", "name", "stem"),
    [
        ("0", "/dev/video0", "camera:0", "camera_0"),
        ("camera:2", "/dev/video2", "camera:2", "camera_2"),
        ("/dev/video1", "/dev/video1", "/dev/video1", "dev_video1"),
        ("rtsp://u:p@cam.local:554/a?x=1", "rtsp://u:p@cam.local:554/a?x=1", "rtsp:/cam.local:554/a", "rtsp_cam.local_554_a"),
        ("http://cam/mjpg", "http://cam/mjpg", "http:/cam/mjpg", "http_cam_mjpg"),
    ],
)  # fmt: skip
def test_live_sources(text: str, address: str, name: str, stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    live = live_source(text)
    assert live is not None
    assert (live.address, str(live), live.stem) == (address, name, stem)
    assert "p@" not in str(live)  # no password in files and messages
    assert is_video(text) and is_video(live) and expand(text) == [live] and expand(live) == [live]
    again = live_source(Path(str(live)))  # what results state as their path
    assert again is not None and again.name == live.name


@pytest.mark.parametrize(
    "text", ["street.jpg", "KITTI/image_2", "1234", "camera", "ftp://a/b.mp4", "C:/a.mp4"]
)
def test_other_names_are_files(text: str) -> None:
    assert live_source(text) is None


def test_a_file_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").mkdir()
    assert live_source("0") is None


def test_cameras_of_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert live_source("1") == LiveSource("1", "camera:1", "avfoundation")
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(InputError, match="Windows"):
        live_source("1")


@pytest.mark.parametrize("text", ["camera:97", "rtsp://me:secret@127.0.0.1:9/x"])
def test_no_answer_is_one_line_without_the_password(text: str) -> None:
    pytest.importorskip("av", reason="PyAV is the extra [video]")
    with pytest.raises(InputError, match="not a camera or stream that answers") as caught:
        next(frames(text))
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
