"""JSON for people too: indented, with an array of numbers on one line."""

from __future__ import annotations

import json
import re
from typing import Any

_NUMBERS = re.compile(r"\[\s*(-?[0-9][-+0-9.eE]*(?:,\s*-?[0-9][-+0-9.eE]*)*)\s*\]")
_STRING = r'"(?:[^"\\]|\\.)*"'
_TOKEN = re.compile(f"{_STRING}|{_NUMBERS.pattern}")


def format_json(content: Any) -> str:
    """``content`` as JSON text without a last newline. Raises ValueError for NaN and infinity, which JSON does not have."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    return _TOKEN.sub(_one_line, text)


def _one_line(match: re.Match[str]) -> str:
    if match[0].startswith('"'):  # brackets within a text are left alone
        return match[0]
    return "[" + ", ".join(match[1].replace(",", " ").split()) + "]"
