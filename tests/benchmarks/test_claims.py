"""The claims' page: every result has its claim, every verdict follows from figures, and the page is what they give."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``benchmarks`` is found where it is run: in the repository's root."""
    monkeypatch.syspath_prepend(str(ROOT))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]


def example(**changes: object) -> object:
    from benchmarks.claims.claim import Claim, Figures, Finding

    def judge(figures: Figures) -> Finding:
        better = figures["a"] > figures["b"]
        return Finding("holds" if better else "does not hold here", f"{figures['a']} against {figures['b']}.")

    given = {
        "id": "smoke-a-beats-b",
        "method": "smoke",
        "sentence": "A beats B.",
        "source": "table 1",
        "setup": "Two numbers.",
        "cost": "cheap",
        "judge": judge,
        "run": lambda workspace: {"a": 2.0 + workspace.seeds[0], "b": 1.0},
        **changes,
    }
    return Claim(**given)  # type: ignore[arg-type]


def test_every_result_has_its_claim_and_can_be_judged() -> None:
    from benchmarks.claims.catalogue import catalogue
    from benchmarks.claims.claim import VERDICTS
    from benchmarks.claims.kept import FOLDER, read_result
    from benchmarks.claims.page import finding

    claims = catalogue()
    for path in FOLDER.glob("*.json"):
        assert path.stem in claims, f"{path.name}: no such claim"
        result = read_result(claims[path.stem])
        assert result is not None and result.seeds == tuple(json.loads(path.read_text())["seeds"])
    for claim in claims.values():
        found = finding(claim, read_result(claim))
        assert found.verdict in VERDICTS and found.reason.endswith(".")
        assert all(len(row) == len(found.table.header) for row in (found.table.rows if found.table else ()))


def test_the_page_is_what_the_results_give() -> None:
    """After a new result: ``python -m benchmarks.claims --write``."""
    from benchmarks.claims.catalogue import catalogue
    from benchmarks.claims.page import PAGE, page

    assert PAGE.read_text(encoding="utf-8") == page(catalogue().values())


def test_the_verdict_follows_the_figures(tmp_path: Path) -> None:
    from benchmarks.claims.kept import write_result
    from benchmarks.claims.page import page

    claim = example()
    assert "**Not run.**" in page([claim], tmp_path)
    beyond = example(id="smoke-beyond", run=None, full="monolift train --data kitti")
    assert "**Needs full KITTI.**" in page([beyond], tmp_path)
    for a, verdict in (
        (2.0, "**Holds.** 2.0 against 1.0."),
        (0.5, "**Does not hold here.** 0.5 against 1.0."),
    ):
        write_result(claim, (0, 1), {"a": a, "b": 1.0}, tmp_path)
        text = page([claim], tmp_path)
        assert verdict in text and "Random seeds: 0, 1." in text
        assert "python -m benchmarks.claims --only smoke-a-beats-b --again" in text


def test_results_keep_no_more_digits_than_mean_something(tmp_path: Path) -> None:
    from benchmarks.claims.kept import read_result, write_result

    claim = example()
    write_result(claim, [3], {"a": 1 / 3, "rows": [[2 / 3, 7]], "n": 7}, tmp_path)
    kept = read_result(claim, tmp_path)
    assert kept is not None
    assert kept.figures == {"a": 0.333333, "rows": [[0.666667, 7]], "n": 7} and kept.seeds == (3,)


def test_experiments_run_once_or_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks.claims import __main__ as command
    from benchmarks.claims import kept
    from benchmarks.claims import page as page_module

    claim, lacking = example(), example(id="smoke-needs-images", run=lambda workspace: None)
    for module in (command, page_module):
        monkeypatch.setattr(module, "PAGE", tmp_path / "claims.md")
        monkeypatch.setattr(
            module, "read_result", lambda claim, folder=None: kept.read_result(claim, tmp_path)
        )
    monkeypatch.setattr(command, "write_result", lambda c, s, f: kept.write_result(c, s, f, tmp_path))
    monkeypatch.setattr(command, "catalogue", lambda: {claim.id: claim, lacking.id: lacking})
    command.main(["--cost", "cheap", "--seeds", "5", "--out", str(tmp_path)])
    assert kept.read_result(claim, tmp_path) == kept.Result((5,), {"a": 7.0, "b": 1.0})
    assert kept.read_result(lacking, tmp_path) is None and not (tmp_path / "claims.md").exists()
    command.main(["--cost", "cheap", "--seeds", "6", "--write"])
    assert kept.read_result(claim, tmp_path).seeds == (5,)  # type: ignore[union-attr]
    assert "| SMOKE | 2 | 1 | 0 | 0 | 0 | 1 |" in (tmp_path / "claims.md").read_text()
    command.main(["--only", claim.id, "--seeds", "6", "--again"])  # type: ignore[attr-defined]
    assert kept.read_result(claim, tmp_path).seeds == (6,)  # type: ignore[union-attr]
    with pytest.raises(SystemExit, match="no claim smoke-nothing"):
        command.main(["--only", "smoke-nothing"])


@pytest.mark.parametrize(
    "changes",
    [{"method": "yolo"}, {"id": "a-beats-b"}, {"cost": "free"}, {"source": ""}, {"run": None}],
)
def test_a_claim_without_what_it_needs_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        example(**changes)


def test_figures_over_seeds() -> None:
    from benchmarks.claims.claim import mean_and_half_range

    assert mean_and_half_range([0.5], 2) == "0.50"
    assert mean_and_half_range([0.1, 0.2], 0, 100) == "15 ± 5"


def test_figures_of_elsewhere_are_named_as_such(tmp_path: Path) -> None:
    from benchmarks.claims.kept import write_result
    from benchmarks.claims.page import page

    claim = example(origin="[there](there.md)")
    assert "copied from" not in page([claim], tmp_path)
    write_result(claim, (0, 1), {"a": 2.0, "b": 1.0}, tmp_path)
    assert "did not measure these figures: they are copied from [there](there.md)." in page([claim], tmp_path)


def test_a_smaller_run_leaves_no_images_of_a_larger_one(tmp_path: Path) -> None:
    """The evaluator reads whole folders: images of an earlier run would count."""
    from benchmarks.monodr import Found, write_corpus

    def found(images: int) -> Found:
        boxes = np.tile([0.0, 1.0, 20.0, 4.0, 1.5, 1.6, 0.0], (images, 1))
        flat = np.ones(images)
        box2d = np.tile([500.0, 150.0, 600.0, 220.0], (images, 1))
        return Found(boxes, boxes, boxes, np.arange(images), flat, box2d, flat, flat, flat)

    write_corpus(found(3), np.ones(3), tmp_path)
    write_corpus(found(2), np.ones(2), tmp_path)
    for folder in ("label_2", "data"):
        assert sorted(p.name for p in (tmp_path / folder).iterdir()) == ["000000.txt", "000001.txt"]


def test_a_verdict_holds_only_with_every_seed() -> None:
    """Of MonoDR's table 3: one seed of two gains less than 5 %."""
    from benchmarks.claims.monodr_verdicts import judge_confidence

    def arm(*values: float) -> dict[str, list[list[float]]]:
        return {key: [[v, v, v] for v in values] for key in ("3d 0.7", "bev 0.7", "3d 0.5", "bev 0.5")}

    figures = {
        "eq. 8": arm(12, 12),
        "without silhouette": arm(10, 10),
        "without protrusion": arm(11, 11),
        "2D score alone": arm(10, 10),
    }
    assert judge_confidence(figures).verdict == "holds"
    assert judge_confidence({**figures, "2D score alone": arm(8, 11.8)}).verdict == "holds in part"


def test_the_depth_error_is_measured_on_detections(tmp_path: Path) -> None:
    """The experiment from end to end, on the bundled image."""
    from benchmarks.claims.claim import Workspace
    from benchmarks.claims.smoke import judge_depth_error, run_depth_error

    from monolift.inference.zoo import EXAMPLE

    files = {"image_2": "example.jpg", "label_2": "label.txt", "calib": "calib.txt"}
    for folder, name in files.items():
        (tmp_path / "training" / folder).mkdir(parents=True)
        copy = tmp_path / "training" / folder / f"000000{Path(name).suffix}"
        copy.write_bytes((EXAMPLE / name).read_bytes())
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets/val.txt").write_text("000000\n")
    figures = run_depth_error(Workspace(tmp_path / "out", kitti=tmp_path))
    assert figures is not None and sum(figures["count"]) >= 1
    rows = judge_depth_error(figures).table
    assert rows is not None and len(rows.rows) >= 1
    nothing = {**figures, "count": [0] * len(figures["count"])}
    assert judge_depth_error(nothing).verdict == "does not hold here"


def test_points_are_brought_onto_others_by_yaw_scale_and_translation() -> None:
    """Procrustes' step finds the similarity that made one set of points of another; equal sets are no distance apart."""
    import torch
    from benchmarks.claims.monodr_points import hausdorff, moved_onto

    from monolift.geometry import Boxes3D
    from monolift.methods.monodr.codec import place

    unit = torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    size = torch.tensor([[4.0, 1.5, 1.6]] * 2)
    before = Boxes3D(torch.tensor([[1.0, 1, 12], [-4, 1, 30]]), size, torch.tensor([0.3, 2.0]))
    after = Boxes3D(torch.tensor([[2.0, 1.5, 15], [-3, 0, 28]]), 1.2 * size, torch.tensor([-0.8, -3.0]))
    found = moved_onto(before, place(unit, before), place(unit, after))
    for name in ("center", "size", "yaw"):
        torch.testing.assert_close(getattr(found, name), getattr(after, name), atol=1e-4, rtol=1e-4)
    apart = hausdorff(place(unit, found), place(unit, after))
    assert float(apart.max()) < 1e-3
    off = torch.tensor([[0.0, 0, 2]])
    shifted = hausdorff(place(unit[:, :1], before), place(unit[:, :1], before) + off)
    torch.testing.assert_close(shifted, torch.tensor([2.0, 2.0]))
