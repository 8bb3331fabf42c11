"""What the benchmarks of the synthetic world compute, and that the realism experiment goes on where it stopped."""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from monolift.data.formats.kitti_format import parse_labels

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# --- statistics


def test_shares_and_how_far_they_lie_apart() -> None:
    statistics = load("synth_statistics")
    bins = np.array([0.0, 1.0, 2.0])
    one = statistics.shares(np.array([0.5, 0.5, 1.5, 7.0]), bins)  # what lies beyond counts into the last bin
    np.testing.assert_allclose(one, [0.5, 0.5])
    two = statistics.shares(np.array([0.1, 0.2, 0.3, -4.0]), bins)
    np.testing.assert_allclose(two, [1.0, 0.0])
    assert statistics.apart(one, two) == pytest.approx(0.5)
    assert statistics.apart(one, one) == 0


def test_limits_that_reproduce_the_degrees_of_occlusion() -> None:
    statistics = load("synth_statistics")
    occlusion = np.array([0, 0, 0, 0, 1, 1, 1, 2, 3, 3.0])  # 3 is unknown
    hidden = np.linspace(0, 1, 801)
    first, second = statistics.fitting_limits(occlusion, hidden)
    assert first == pytest.approx(4 / 8) and second == pytest.approx(7 / 8)


def test_columns_of_a_class() -> None:
    statistics = load("synth_statistics")
    line = "Car 0.25 1 -1.57 10 20 30 60 1.5 1.6 3.9 -2 1.7 20 1.57\n"
    labels = parse_labels(line + line.replace("Car", "Van"))
    values = statistics.gather([labels, labels], "Car")
    assert set(values) == set(statistics.BINS)
    assert values["height"].tolist() == [40, 40] and values["depth"].tolist() == [20, 20]
    assert values["yaw"][0] == pytest.approx(np.degrees(1.57)) and values["truncation"].tolist() == [
        0.25,
        0.25,
    ]
    same = statistics.compare(values, values)
    assert all(row["distance"] == 0 for row in same.values())


# --- realism


class Runs:
    """Stands in for `monolift train` and the scoring: notes what was asked for, leaves the files that a run leaves."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.killed = False

    def run(self, command: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        self.commands.append(command)
        if command[3] == "synth":
            return subprocess.CompletedProcess(command, 0)
        out = Path(command[command.index("--out") + 1])
        (out / "last").mkdir(parents=True, exist_ok=True)
        return subprocess.CompletedProcess(command, 2 if self.killed else 0)


def test_realism_trains_each_arm_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    realism = load("realism")
    runs = Runs()
    monkeypatch.setattr(realism.subprocess, "run", runs.run)
    scores = {name: [3.0, 2.0, 1.0] for *_, name in realism.METRICS}
    monkeypatch.setattr(realism, "score", lambda *_: scores)
    (tmp_path / "train.txt").write_text("".join(f"{k:06d}\n" for k in range(20)))
    out = tmp_path / "out"
    given = [
        "kitti", "--split", str(tmp_path / "train.txt"), "--val-split", "val.txt", "--out", str(out), "--images", "40",
        "--synthetic-epochs", "3", "--real-epochs", "2", "--batch", "4", "--seeds", "7", "--init", "start.onnx",
        "--json", str(tmp_path / "figures.json"),
    ]  # fmt: skip
    runs.killed = True
    with pytest.raises(SystemExit, match="2"):
        realism.main(given)
    runs.killed = False
    realism.main(given)
    trained = [c for c in runs.commands if c[3] == "train"]
    assert ["--resume" in c for c in trained] == [False, True, False, False]
    synthetic, _, pretrained, real = (dict(itertools.pairwise(c)) for c in trained)
    assert synthetic["--data"] == str(out / "world") and "--split" not in synthetic
    assert synthetic["--init"] == real["--init"] == "start.onnx"
    assert pretrained["--init"] == str(out / "synthetic_7" / "last")
    # 3 epochs of 10 synthetic steps and 2 of 5 real ones: 40 steps, 8 real epochs.
    assert [next(w for w in c if w.startswith("epochs=")) for c in trained] == [
        "epochs=3",
        "epochs=3",
        "epochs=2",
        "epochs=8",
    ]
    assert "synthetic 30, pretrained 10 more, real 40" in capsys.readouterr().out
    count = len(runs.commands)
    realism.main(given)  # all there: only the world is looked at
    assert len(runs.commands) == count + 1
    rows = json.loads((tmp_path / "figures.json").read_text())
    assert [(r["arm"], r["seed"]) for r in rows] == [("synthetic", 7), ("pretrained", 7), ("real", 7)]
    assert rows[0]["3D 0.7"] == [3.0, 2.0, 1.0] and "3.00 / 2.00 / 1.00" in capsys.readouterr().out
