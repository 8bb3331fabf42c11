"""For mkdocstrings: the plain text of our docstrings as Markdown.

They are written to be read with ``help()``. What a line says of one name ("depth: (N,) metres") becomes a list item, a word
above an indented paragraph becomes a heading of it, and Sphinx's roles lose their prefix.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

NAMED = re.compile(r"^ *((?:[a-z][a-z0-9_]*)(?:, [a-z][a-z0-9_]*)*): +(?=\S)")
SECTION = re.compile(r"^([A-Z][a-z]+)\n((?: {4}.*\n?)+)", re.MULTILINE)


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    text = re.sub(r":[a-z]+:`~?([^`]+)`", r"`\1`", text)
    text = SECTION.sub(lambda m: f"**{m[1]}.** " + re.sub(r"^ {4}", "", m[2], flags=re.MULTILINE), text)
    lines: list[str] = []
    in_item = False
    for line in text.split("\n"):
        named = NAMED.match(line)
        if named and not line.startswith("    "):
            lines += [] if in_item else [""]
            line = f"- **{named[1]}**: {line[named.end() :]}"
            in_item = True
        elif not line.strip():
            in_item = False
        elif in_item and not line.startswith("    "):
            lines.append("")  # a sentence after the list
            in_item = False
        lines.append(line)
    return "\n".join(lines)
