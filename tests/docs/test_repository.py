"""What a second developer finds at the root: citation, policies, templates, hooks and the hosted workflow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import monolift

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
TYPES = {"article", "conference-paper"}


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_has_what_the_format_demands_and_the_four_papers() -> None:
    """Keys of the Citation File Format 1.2.0, and this version."""
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["version"] == monolift.__version__
    assert len(citation["references"]) == 4
    for paper in citation["references"]:
        assert {"authors", "title", "type", "year"} <= paper.keys() and paper["type"] in TYPES
        assert all({"family-names", "given-names"} == author.keys() for author in paper["authors"])


def test_the_workflow_runs_the_same_script_on_every_supported_python() -> None:
    job = read(".github/workflows/ci.yml")["jobs"]["test"]
    versions = job["strategy"]["matrix"]["python"]
    assert versions == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    least = re.search(r'requires-python = ">=(\S+)"', (ROOT / "pyproject.toml").read_text())
    assert least and least[1] == versions[0]
    assert "bash .ci/run" in [step.get("run") for step in job["steps"]]


def test_the_forms_and_hooks_can_be_read() -> None:
    for form in ("bug_report.yml", "feature_request.yml"):
        content = read(f".github/ISSUE_TEMPLATE/{form}")
        assert {"name", "description", "body"} <= content.keys()
        assert all({"type", "attributes"} <= field.keys() for field in content["body"])
    hooks = [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format", "import-contracts"}
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks)
    for page in ("SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", ".github/pull_request_template.md"):
        assert len((ROOT / page).read_text().split()) > 20


def test_the_version_has_a_place_in_the_changelog() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert any(heading.startswith(monolift.__version__) for heading in headings)
