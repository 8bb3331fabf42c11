"""``monolift models``: the checkpoints that ship with the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from monolift.commands.output import console, write_json
from monolift.inference import zoo as model_zoo
from monolift.inference.checkpoint import WEIGHTS_FILE, read_config

COLUMNS = ("name", "method", "trained on", "AP", "size", "speed", "licence")


@dataclass(frozen=True)
class Models:
    """The models that ship with the package: name, method, data, AP, size, speed, licence.

    monolift models --json models.json
    """

    json: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """The model cards as JSON in this file, or on standard output with "-"."""
    quiet: bool = False
    """No table."""


def run(options: Models) -> int:
    cards = [describe(model_zoo.resolve(name)) for name in model_zoo.names()]
    if options.json is not None:
        write_json(options.json, cards)
    if not options.quiet:
        from rich.table import Table

        table = Table()
        for column in COLUMNS:
            table.add_column(column)
        for card in cards:
            table.add_row(*(str(card.get(column) or "not stated") for column in COLUMNS))
        console(stderr=options.json == "-").print(table)
    return 0


def describe(folder: Path) -> dict[str, Any]:
    """One row: what the card of a checkpoint folder says, and the size of its weights."""
    config = read_config(folder)
    card: dict[str, Any] = config.get("card") or {}
    weights = folder / WEIGHTS_FILE
    return {
        "name": folder.name,
        "method": config["method"],
        "trained on": card.get("data"),
        "AP": card.get("ap"),
        "size": f"{weights.stat().st_size / 1e6:.1f} MB" if weights.exists() else "weights missing",
        "speed": card.get("speed"),
        "licence": card.get("licence"),
        "card": card,
    }
