"""User-facing errors: the command line prints them on one line, without a traceback.

Any other exception is a bug in monolift.
"""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used: a file, a line, a camera, an option.

    The message says where (file and line), what was expected, what came, and what to do. The command line prints it on one
    line, without a traceback, and exits with code 2.
    """


class DiskError(InputError):
    """A disk that is full or broken: the same command works once there is space.

    The command line exits with code 1. Loops that go on after a bad image stop here: every further file would fail alike.
    """


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message holds the exact ``pip install`` line."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f'{feature} needs an optional dependency: pip install "monolift[{extra}]"')
