"""Completion: the script of each shell knows every subcommand and option; bash runs its own."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from monolift.cli import SUBCOMMANDS, main
from monolift.commands.completion import options_of


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_name_everything(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in SUBCOMMANDS)
    assert "camera-speed" in text and "--source" not in text and " -l source" not in text


def test_options_are_named_as_they_are_typed() -> None:
    assert {"--set", "--val-split", "--help"} <= set(options_of("train")) and "--settings" not in options_of(
        "train"
    )


@pytest.mark.parametrize(
    ("words", "found"), [("det", "detect"), ("detect --tr", "--track"), ("detect str", "")]
)
def test_bash(words: str, found: str, capsys: pytest.CaptureFixture[str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    main(["completion", "bash"])
    script = capsys.readouterr().out
    count = len(words.split())
    script += f'COMP_WORDS=(monolift {words}); COMP_CWORD={count}; _monolift; echo "${{COMPREPLY[*]}}"\n'
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == found


def test_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "SHELL: expected bash, zsh, fish, got tcsh" in capsys.readouterr().err
