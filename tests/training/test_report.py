"""What a training shows of its epochs: lines without zeros, curves, loggers, when patience ends."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.errors import InputError, MissingExtraError
from monolift.training.loggers import LOGGERS, check_loggers, open_loggers
from monolift.training.options import RunOptions
from monolift.training.processes import Processes
from monolift.training.report import draw_curves, epoch_lines, stale
from monolift.training.run_folder import History
from monolift.training.train import _is_stale

LOSSES = {"epoch": 2, "step": 40, "total": 3.25, "heatmap": 1.5, "depth": 0.0}
SCORES = {"car_bbox_0.7": 41.25, "car_3d_0.7": 0.0, "cyclist_bbox_0.5": 0.0, "selection": 13.75, "score": 0.3}


def test_lines_leave_zeros_out() -> None:
    assert epoch_lines(LOSSES, 30) == ["epoch 2/30  loss 3.25  (heatmap 1.5)"]
    assert epoch_lines(LOSSES | SCORES, 30)[1:] == ["  AP car 2D 0.7: 41.25", "  selection 13.75"]
    nothing = dict.fromkeys(SCORES, 0.0)
    assert epoch_lines(LOSSES | nothing, 30)[1:] == ["  AP of every class is 0 so far"]


def test_stale_counts_validations() -> None:
    rows: list[dict[str, Any]] = [{"epoch": k, "total": 1.0} for k in range(6)]
    assert stale(rows) == 0
    for row, value in zip(rows, (1, None, 3, 3, 2, None), strict=True):
        row |= {} if value is None else {"selection": value}
    assert stale(rows) == 2  # an equal one is no better


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_curves(epochs: int) -> None:
    rows = [LOSSES | {"epoch": k + 1, "total": 9 / (k + 1)} for k in range(epochs)]
    assert draw_curves(rows).size == (560, 360)
    both = draw_curves([*rows[:-1], rows[-1] | SCORES])
    assert both.size == (1120, 360)
    assert np.asarray(both)[..., 0].std() > 3
    odd = draw_curves([LOSSES | {"total": float("nan")}])
    assert odd.size == (560, 360)


def test_the_history_draws_and_reports(tmp_path: Path) -> None:
    told: list[dict[str, float]] = []
    logger = SimpleNamespace(add=told.append, close=lambda: told.append({}))
    history = History(tmp_path, [logger])
    history.add(LOSSES)
    history.close()
    assert told == [LOSSES, {}]
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (560, 360)


def test_wandb_and_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    def noted(name: str, result: Any = None) -> Any:
        return lambda *a, **k: (calls.append((name, (a, k))), result)[1]

    run = SimpleNamespace(log=noted("log"), finish=noted("finish"))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=noted("init", run)))
    names = ("start_run", "log_params", "log_metrics", "end_run")
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(**{name: noted(name) for name in names}))
    for logger in open_loggers(["wandb", "mlflow"], tmp_path / "run", {"seed": 0}):
        logger.add(LOSSES)
        logger.close()
    assert [name for name, _ in calls] == ["init", *names[:2], "log", "finish", "log_metrics", "end_run"]
    given = dict(calls)
    assert given["init"][1]["name"] == "run" and given["init"][1]["config"] == {"seed": 0}
    assert given["log"] == ((LOSSES,), {"step": 2}) and given["log_metrics"][1] == {"step": 2}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_library_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"monolift\[{name}\]"):
        LOGGERS[name](tmp_path, {})


def test_wrong_options() -> None:
    with pytest.raises(InputError, match="log_to: expected tensorboard, wandb, mlflow, got wand"):
        check_loggers(["wand"])
    with pytest.raises(InputError, match="patience: expected 1 or more"):
        RunOptions(val_split="val.txt", patience=0)
    with pytest.raises(InputError, match="patience: counts validations"):
        RunOptions(patience=3)


@pytest.mark.parametrize(("patience", "ends"), [(None, False), (3, False), (2, True)])
def test_patience_ends_a_training(patience: int | None, ends: bool) -> None:
    said: list[str] = []
    rows = [{"epoch": k, "selection": value} for k, value in enumerate((1.0, 3.0, 3.0, 2.0))]
    training: Any = SimpleNamespace(
        processes=Processes(0, 1, torch.device("cpu")),
        history=SimpleNamespace(rows=rows),
        state=SimpleNamespace(epoch=4),
        progress=SimpleNamespace(say=said.append),
    )
    assert _is_stale(training, patience) == ends
    assert said == (["ends in epoch 4: 2 validations without a better one"] if ends else [])
