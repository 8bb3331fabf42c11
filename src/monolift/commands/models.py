"""``monolift models``: the checkpoints that ship with the package."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from monolift.commands.option import option
from monolift.commands.output import WIDTH, console, write_json
from monolift.inference import zoo as model_zoo
from monolift.inference.checkpoint import WEIGHTS_FILE, read_config


@dataclass(frozen=True)
class Models:
    """List the bundled models: method, training data, AP, size, speed, licence.

    monolift models --json models.json
    """

    json: Annotated[str | None, option("FILE")] = None
    """Write the model cards as JSON to FILE, or to standard output with "-"."""
    quiet: bool = False
    """Print no table."""


def run(options: Models) -> int:
    cards = [describe(model_zoo.resolve(name)) for name in model_zoo.names()]
    if options.json is not None:
        write_json(options.json, cards)
    if not options.quiet:
        terminal = console(stderr=options.json == "-")
        terminal.print("\n\n".join(map(_described, cards)), highlight=False, markup=False, soft_wrap=True)
    return 0


def _described(card: dict[str, Any]) -> str:
    """One model over a few lines of at most 80 columns."""
    lines = [f"{card['name']}   {card['method']}, {card['size']}"]
    for row in ("trained on", "AP", "speed", "licence"):
        text = f"  {row:<11} {card[row] or 'not stated'}"
        lines.append(textwrap.fill(text, WIDTH, subsequent_indent=" " * 14, break_on_hyphens=False))
    return "\n".join(lines)


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
