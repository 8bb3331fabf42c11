"""``python -m monolift`` is ``monolift``."""

from monolift.cli import entry

entry()
