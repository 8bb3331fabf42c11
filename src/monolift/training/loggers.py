"""Where else a training's epochs are reported: TensorBoard, Weights & Biases, MLflow; each is imported where it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from monolift.errors import InputError, MissingExtraError


@runtime_checkable
class Logger(Protocol):
    """Takes the row of an epoch: its number, step, losses and, after a validation, scores."""

    def add(self, row: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Events in OUT/tensorboard."""

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("log_to tensorboard", "tensorboard") from error
        self._events = SummaryWriter(str(out / "tensorboard"))

    def add(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self._events.add_scalar(name, value, row["epoch"])
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class WeightsAndBiases:
    """A run of wandb, named like the run folder; its environment variables (WANDB_PROJECT, WANDB_MODE, ...) count."""

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingExtraError("log_to wandb", "wandb") from None
        # a resumed training continues its run: the id is that of its folder
        self._run = wandb.init(
            name=out.name, id=_id(out), resume="allow", dir=str(out), config=dict(settings)
        )

    def add(self, row: Mapping[str, float]) -> None:
        self._run.log(dict(row), step=int(row["epoch"]))

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of mlflow, named like the run folder; MLFLOW_TRACKING_URI and the like count."""

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        try:
            import mlflow
        except ImportError:
            raise MissingExtraError("log_to mlflow", "mlflow") from None
        self._mlflow = mlflow
        mlflow.start_run(run_name=out.name)
        mlflow.log_params({name: str(value)[:500] for name, value in settings.items()})

    def add(self, row: Mapping[str, float]) -> None:
        self._mlflow.log_metrics({name: float(v) for name, v in row.items()}, step=int(row["epoch"]))

    def close(self) -> None:
        self._mlflow.end_run()


LOGGERS: dict[str, Callable[[Path, Mapping[str, Any]], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def check_loggers(names: Sequence[str]) -> None:
    """Raises InputError for a name that is none of LOGGERS."""
    unknown = [name for name in names if name not in LOGGERS]
    if unknown:
        raise InputError(f"log_to: expected {', '.join(LOGGERS)}, got {', '.join(unknown)}")


def open_loggers(names: Sequence[str], out: Path, settings: Mapping[str, Any]) -> list[Logger]:
    """The loggers of these names.

    Raises:
        MissingExtraError: for one whose library is not installed.
    """
    return [LOGGERS[name](out, settings) for name in dict.fromkeys(names)]


def _id(out: Path) -> str:
    """A run's id that a resumed training finds again."""
    import zlib

    return f"{out.name[:40]}-{zlib.crc32(str(out.resolve()).encode()):08x}".replace(" ", "-")
