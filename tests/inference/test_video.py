"""Annotated videos: written whole or not at all, read back frame by frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monolift.data.sources import frames
from monolift.errors import InputError, MissingExtraError
from monolift.inference.video import frame_rate, open_video

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200)]


def test_a_video_round_trip(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is the extra [video]")
    path = tmp_path / "new" / "drive.mp4"
    with open_video(path, 7.5) as video:
        for colour in COLOURS:
            video.add(Image.new("RGB", (321, 203), colour))  # odd: H.264 takes even sizes
        assert not path.exists()
    assert frame_rate(path) == pytest.approx(7.5)
    seen = list(frames(path))
    assert [f.image.shape for f in seen] == [(3, 202, 320)] * 3
    assert [f.time for f in seen] == pytest.approx([0.0, 1 / 7.5, 2 / 7.5], abs=1e-3)
    for frame, colour in zip(seen, COLOURS, strict=True):
        assert np.abs(frame.image.float().mean((1, 2)).numpy() - colour).max() < 12
    assert [p.name for p in path.parent.iterdir()] == ["drive.mp4"]


def test_a_large_frame_is_reduced_and_a_later_one_is_fitted(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is the extra [video]")
    with open_video(tmp_path / "a.mp4", 10) as video:
        video.add(Image.new("RGB", (3840, 400)))
        video.add(Image.new("RGB", (64, 64)))
    assert [f.image.shape for f in frames(tmp_path / "a.mp4")] == [(3, 200, 1920)] * 2


@pytest.mark.parametrize("error", [RuntimeError, InputError])
def test_an_error_leaves_nothing(tmp_path: Path, error: type[Exception]) -> None:
    pytest.importorskip("av", reason="PyAV is the extra [video]")
    with pytest.raises(error, match="boom"), open_video(tmp_path / "a.mp4", 10) as video:
        video.add(Image.new("RGB", (64, 64)))
        raise error("boom")
    with pytest.raises(InputError, match="no frames"), open_video(tmp_path / "a.mp4", 10):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "fps", "said"), [("a.avi", 10, r"\.mp4"), ("a.mp4", 0, "got 0"), ("a.mp4", float("nan"), "nan")]
)
def test_what_cannot_be_written_is_named(tmp_path: Path, name: str, fps: float, said: str) -> None:
    with pytest.raises(InputError, match=said), open_video(tmp_path / name, fps):
        pass


def test_without_pyav_the_pip_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"monolift\[video\]"), open_video(tmp_path / "a.mp4", 10):
        pass
