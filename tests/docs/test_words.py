"""The field's words in help, documentation and public docstrings (the glossary is docs/glossary.md)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from monolift.cli import SUBCOMMANDS, main
from monolift.commands.settings_page import settings_page
from monolift.methods import METHODS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.md")]
)
MODULES = sorted(str(module.relative_to(ROOT)) for module in (ROOT / "src" / "monolift").rglob("*.py"))

REPLACED = {
    r"pictures?": "image",
    r"photograph(s|ed|y)?": "image",
    r"(?<!own )photos?": "image (a person's own photo stays one)",
    r"key[ -]points?": "keypoint",
    r"verbs?": "subcommand",
    r"(?<!ground\s)(?<!ground-)truth": "ground truth, label",
    r"mend(s|ed|ing)?": "fix",
    r"dissent\w*": "outlier",
    r"hints?(?! at)": "predicted parameter",
    r"sureness": "uncertainty",
    r"portions?": "batch, part",
    r"lens(es)?(?! (distortion|blur)|:|   )": "camera, focal length",
    r"(?<!maximum )suppress(ion|ed)": "NMS",
    r"outweighs?": "overrides, takes precedence",
    r"whoever": "users, a caller",
    r"(is|are|be|was) told": "reports, warns",
    r"behind your back": "implicit",
    r"come again": "retry",
    r"neither sought nor background": "ignored in the loss",
    r"(go|goes|going) on (where|with a)": "resume",
    r"(is|are) taken for": "assume",
    r"lowest score that is kept": "score threshold",
    r"(of )?everything random": "random seed",
    r"what was asked for": "overrides",
    r"wrong rotations?": "local minimum",
    r"least overlaps?": "IoU threshold",
}
WORD = re.compile("|".join(rf"(?P<w{k}>\b{pattern}\b)" for k, pattern in enumerate(REPLACED)), re.IGNORECASE)


def replaced_words(text: str) -> list[str]:
    """Each use of a replaced word in prose, with what to say; code (in backticks, fenced, or linked paths) is not prose."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^:::.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"``?[^`\n]+``?|\]\([^)]*\)|:\w+:`[^`]+`", " ", text)
    text = re.sub(r"\s+", " ", text)  # a phrase may be folded
    found = []
    for match in WORD.finditer(text):
        better = list(REPLACED.values())[int(str(match.lastgroup)[1:])] if match.lastgroup else ""
        found.append(f"{text[max(0, match.start() - 30) : match.end() + 20]!r}: {match[0]} -> {better}")
    return found


def test_the_patterns_find_what_they_should_and_nothing_else() -> None:
    for bad in (
        "A picture.",
        "the truth is",
        "of everything random",
        "26 hints",
        "a Lens of",
        "KEY POINT",
        "Suppressed",
    ):
        assert replaced_words(bad), bad
    for good in (
        "the ground truth", "your own photo", "`--hints`", "lens distortion", "non-maximum suppression", "recommend it",
        "pictured", "```\npicture\n```", "an adverb", "[x](images/photo.jpg)",
    ):  # fmt: skip
        assert not replaced_words(good), good


@pytest.mark.parametrize("subcommand", ["", *SUBCOMMANDS])
def test_help(subcommand: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The field's words, within 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    if subcommand:
        with pytest.raises(SystemExit):
            main([subcommand, "--help"])
    else:
        main(["--help"])
    text = capsys.readouterr().out
    assert text
    assert not replaced_words(re.sub(r"--[a-z-]+", "", text))
    assert [line for line in text.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("method", METHODS)
def test_help_of_settings(method: str) -> None:
    if method in METHODS and (ROOT / "src/monolift/methods" / method / "config.py").is_file():
        assert not replaced_words(settings_page(method))


@pytest.mark.parametrize("page", PAGES)
def test_pages(page: str) -> None:
    if page != "docs/glossary.md":  # which lists them
        assert not replaced_words((ROOT / page).read_text())


@pytest.mark.parametrize("module", MODULES)
def test_public_docstrings_and_errors(module: str) -> None:
    found = []
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.Raise) and node.exc is not None:
            texts = [part.value for part in ast.walk(node.exc) if isinstance(part, ast.Constant)]
            message = "".join(text for text in texts if isinstance(text, str))
            found += [
                f"line {node.lineno}: {one}" for one in replaced_words(re.sub(r"--[a-z-]+", "", message))
            ]
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            continue
        if getattr(node, "name", "").startswith("_") and getattr(node, "name", "") != "__init__":
            continue
        docstring = ast.get_docstring(node) or ""
        found += [f"{getattr(node, 'name', 'module')}: {one}" for one in replaced_words(docstring)]
    assert not found
