"""Options that may be omitted: their help states the default in words, not as None."""

from __future__ import annotations

from typing import Any

import tyro


def option(metavar: str) -> Any:
    """The annotation of an option that may be omitted; its docstring states the default.

    Args:
        metavar: placeholder of the value in help, such as FILE.
    """
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=_hint)


def _hint(default: str) -> str:
    return "" if default in ("None", "", "''") else f"(default: {default})"
