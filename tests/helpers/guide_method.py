"""The method that docs/adding_a_method.md builds, as the module that a reader would save."""

from __future__ import annotations

import importlib
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_method.md"


def heights() -> ModuleType:
    """The page's first Python block, imported as ``heights``; registers the method."""
    if "heights" not in sys.modules:
        block = re.search(
            r"^```python\n# heights\.py\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
        )
        assert block
        folder = Path(tempfile.mkdtemp(prefix="guide-method-"))
        (folder / "heights.py").write_text(block[1])
        sys.path.append(str(folder))
    return importlib.import_module("heights")
