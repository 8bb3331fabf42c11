"""The errors that are the user's to mend.

Everything else that is raised is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class InputError(ValueError):
    """Input that cannot be used: a file, a line, a camera, an option.

    The message says where (file and line), what was expected, what came, and what to do. The command line prints it on one
    line, without a traceback, and exits with code 2.
    """


def check_choices(owner: str, config: object, choices: Mapping[str, Sequence[str]]) -> None:
    """Raises InputError for the first field of ``config`` whose value is not among its ``choices``. owner: whose options."""
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise InputError(
                f"{owner} {name} must be one of {', '.join(allowed)}, got {getattr(config, name)!r}".lstrip()
            )


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message holds the exact ``pip install`` line."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f'{feature} needs an optional dependency: pip install "monolift[{extra}]"')
