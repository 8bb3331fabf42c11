"""``monolift SUBCOMMAND ...``: finds the subcommand, reads its options, turns errors into one line and an exit code.

0: done. 1: failed (out of memory, disk full, a training that diverged). 2: bad usage or bad input. 130: interrupted.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import math
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from monolift.commands.names import SUBCOMMANDS, class_name, module_name
from monolift.errors import DiskError, InputError, MissingExtraError

__all__ = ["SUBCOMMANDS", "class_name", "entry", "main", "module_name"]

WIDTH = 80  # columns of help

HELP = """\
usage: monolift SUBCOMMAND ...

One image and its camera in, metric 3D boxes out.

{subcommands}

  monolift SUBCOMMAND --help   options and an example
  monolift --version           the version

Exit codes: 0 done, 1 failed, 2 bad usage or bad input.
"""


def entry() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Runs one command line; returns its exit code."""
    try:
        return _chosen(arguments)
    except InputError as error:
        return _fail(str(error), 1 if isinstance(error, DiskError) else 2)
    except (MissingExtraError, FloatingPointError, MemoryError) as error:
        return _fail(str(error) or type(error).__name__, 1)
    except BrokenPipeError:  # the reader of our output has gone, as in `monolift ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}", 1)
    except RuntimeError as error:
        if "out of memory" not in str(error):  # torch's own class cannot be named without importing torch
            raise
        return _fail(str(error).splitlines()[0], 1)
    except KeyboardInterrupt:
        return _fail("interrupted; finished files are complete", 130)


def _chosen(arguments: Sequence[str]) -> int:
    """Runs the subcommand, or prints the help or the version."""
    name = arguments[0] if arguments else ""
    if name in ("", "-h", "--help", "help"):
        width = max(map(len, SUBCOMMANDS))
        lines = "\n".join(f"  {one:<{width}}  {text}" for one, text in SUBCOMMANDS.items())
        print(HELP.format(subcommands=lines))  # noqa: T201
        return 0 if name else 2
    if name in ("--version", "-V"):
        from monolift import __version__

        print(f"monolift {__version__}")  # noqa: T201
        return 0
    if name not in SUBCOMMANDS:
        near = difflib.get_close_matches(name, SUBCOMMANDS, 1)
        return _fail(
            f"no subcommand {name!r}"
            + (f": did you mean {near[0]}?" if near else f": expected {', '.join(SUBCOMMANDS)}"),
            2,
        )
    return _run(name, arguments[1:])


def _run(name: str, arguments: Sequence[str]) -> int:
    module: Any = importlib.import_module(module_name(name))
    if hasattr(module, "page") and (page := module.page(arguments)):
        print(page, end="")  # noqa: T201
        return 0
    options_type = getattr(module, class_name(name))
    import tyro

    sentence, _, example = inspect.cleandoc(options_type.__doc__).partition("\n\n")
    example = _folded(example.removeprefix("Example:"))
    options = tyro.cli(
        options_type,
        default=module.defaults(arguments) if hasattr(module, "defaults") else None,
        prog=f"monolift {name}",
        description=f"{sentence}\n\nexample:\n{example}",
        args=list(arguments),
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff),
    )
    _check_numbers(options)
    return int(module.run(options))


def _check_numbers(options: Any) -> None:
    """Raises InputError for an option that is nan or infinite: nan passes every comparison with a limit that it should fail."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            _check_numbers(value)
            continue
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, float) and not math.isfinite(one):
                name = field.name.replace("_", "-")
                raise InputError(f"--{name}: expected a finite number, got {one}")


def _folded(command: str) -> str:
    """A command line over as many lines as it takes, a backslash at the end of each but the last."""
    first, *options = re.split(r"\s+(?=--)", command.strip())
    lines = [f"  {first}"]
    for option in options:
        if len(lines[-1]) + len(option) + 3 > WIDTH:
            lines[-1] += " \\"
            lines.append("     ")
        lines[-1] += f" {option}"
    return "\n".join(lines)


def _fail(message: str, code: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"monolift: {' '.join(message.split())}\n")
    return code


if __name__ == "__main__":
    entry()
