"""The GPU run, rehearsed on the CPU with a tiny budget: every part is measured, and a second call goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from toy_kitti import write_toy

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_run.py"


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    write_toy(tmp_path / "data", [f"{k:06d}" for k in range(4)], size=(310, 94))
    out = tmp_path / "out"
    small = ("classes=Car", "input_width=128", "input_height=64", "batch_size=2")
    settings = [word for setting in small for word in ("--set", setting)]
    command = [
        sys.executable,
        str(SCRIPT),
        "--device",
        "cpu",
        "--tiny",
        "--out",
        str(out),
        "--workers",
        "0",
        *settings,
    ]
    given = [*command, "--data", str(tmp_path / "data"), "--minutes"]
    subprocess.run([*given, "0"], check=True)
    table = json.loads((out / "table.json").read_text())
    assert table["detect"] == "not measured"  # no time was left
    subprocess.run([*given, "60", "--train-minutes", "0.02"], check=True)
    table = json.loads((out / "table.json").read_text())
    assert not [name for name, part in table.items() if isinstance(part, dict) and "error" in part]
    assert table["training"]["steps"] >= 1 and table["training"]["model"] == "model"
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) <= 8 and all(path.stat().st_size <= 16 * 2**20 for path in files)
