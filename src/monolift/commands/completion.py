"""``monolift completion``: a script for bash, zsh or fish that completes subcommands, options and file names."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

import tyro

from monolift.commands.names import SUBCOMMANDS, class_name, module_name
from monolift.commands.option import option
from monolift.errors import InputError

HEAD = "# completes monolift's subcommands and options; made by `monolift completion {shell}`\n"

BASH = """\
_monolift() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" options=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{names}" -- "$word"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    if [ "${{word#-}}" != "$word" ]; then
        COMPREPLY=($(compgen -W "$options" -- "$word"))
    fi
}}
complete -o default -o bashdefault -F _monolift monolift
"""


@dataclass(frozen=True)
class Completion:
    """Print a script that completes subcommands, options and file names.

    monolift completion bash
    """

    shell: Annotated[str, tyro.conf.Positional, option("SHELL")] = ""
    """bash, zsh or fish."""
    quiet: bool = False
    """Print warnings and errors only, besides the script."""


def run(options: Completion) -> int:
    """Writes the script to standard output."""
    makers = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    if options.shell not in makers:
        raise InputError(f"SHELL: expected {', '.join(makers)}, got {options.shell or 'none'}")
    sys.stdout.write(HEAD.format(shell=options.shell) + makers[options.shell]())
    return 0


def options_of(subcommand: str) -> list[str]:
    """The options of a subcommand, as they are typed."""
    kind = getattr(importlib.import_module(module_name(subcommand)), class_name(subcommand))
    hints = get_type_hints(kind, include_extras=True)
    named = [_typed(field.name, hints[field.name]) for field in dataclasses.fields(kind)]
    return [f"--{name}" for name in named if name] + ["--help"]


def _typed(name: str, hint: Any) -> str | None:
    """An option's name; None for a positional argument."""
    for marker in get_args(hint)[1:]:
        if marker is tyro.conf.Positional or "Positional" in repr(marker):
            return None
        name = getattr(marker, "name", None) or name
    return name.replace("_", "-")


def _bash() -> str:
    cases = "\n".join(f'        {name}) options="{" ".join(options_of(name))}" ;;' for name in SUBCOMMANDS)
    return BASH.format(names=" ".join(SUBCOMMANDS), cases=cases)


def _zsh() -> str:
    return "autoload -U +X bashcompinit && bashcompinit\n" + _bash()


def _fish() -> str:
    lines = [
        f"complete -c monolift -n __fish_use_subcommand -f -a {name} -d '{text}'"
        for name, text in SUBCOMMANDS.items()
    ]
    for name in SUBCOMMANDS:
        for one in options_of(name):
            lines.append(
                f"complete -c monolift -n '__fish_seen_subcommand_from {name}' -l {one.removeprefix('--')}"
            )
    return "\n".join(lines) + "\n"
