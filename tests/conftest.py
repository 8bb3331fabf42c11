"""Set-up of all tests: checked array shapes, quiet threads, fixed seeds, and the folder of real data where there is one."""

from __future__ import annotations

import os

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # read when torch is imported; spinning threads starve other processes

import importlib.util
import random
import tempfile
from pathlib import Path

# what a user's cache holds must not decide how a test detects
os.environ["MONOLIFT_CACHE"] = os.path.join(tempfile.gettempdir(), "monolift-tests-no-cache")

# Every annotated call of the package is checked: shapes by jaxtyping, types by beartype. The hook must stand before the
# first import of monolift.
if importlib.util.find_spec("jaxtyping") and importlib.util.find_spec("beartype"):
    from jaxtyping import install_import_hook

    # the numeric tower: an int will do for a float
    install_import_hook("monolift", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(2)
settings.register_profile(
    "monolift",
    deadline=None,  # a slow machine is no failure
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("monolift")


# Files whose tests take seconds: trainings, renderings, exports, the blocks of the pages. `make test-fast` leaves them out.
SLOW = (
    "augment/test_augment.py", "augment/test_paste.py", "autolabel/", "benchmarks/", "commands/test_cli.py",
    "commands/test_depth.py", "commands/test_detect_resume.py", "commands/test_detect_video.py",
    "commands/test_shapes_and_augment.py", "data/formats/test_convert.py",
    "data/formats/test_kitti_format.py", "data/formats/test_masks.py", "docs/test_guides.py",
    "docs/test_notebooks.py", "docs/test_readme.py", "evaluation/test_comparison.py",
    "evaluation/test_extremes.py", "evaluation/test_golden.py", "evaluation/test_matching.py",
    "evaluation/test_overlap.py", "export/", "files/test_fuzz.py", "files/test_yaml_text.py",
    "geometry/test_camera.py", "geometry/test_iou.py", "inference/test_checkpoint.py",
    "inference/test_detect.py", "inference/test_lift.py", "inference/test_pretrained.py",
    "inference/test_released.py", "inspection/test_dataset.py", "methods/test_contract.py",
    "methods/test_fitter.py", "methods/test_monodr", "methods/test_renamed.py", "methods/test_roi10d",
    "methods/test_round_trip.py", "methods/test_smoke_assign.py", "methods/test_smoke_loss.py",
    "methods/test_smoke_network.py", "methods/test_smoke_presets.py", "methods/test_ss3d_codec.py",
    "methods/test_ss3d_fit.py", "methods/test_ss3d_loss.py", "methods/test_ss3d_network.py", "nn/",
    "render/test_renderer.py", "serve/", "shapes/", "training/", "viewer/test_guide.py",
    "viewer/test_server.py", "world/",
)  # fmt: skip
BROWSER = ("serve/test_serve_page.py", "viewer/test_browser.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the slow and the browser tests by their files."""
    tests = Path(__file__).parent
    for item in items:
        name = item.path.relative_to(tests).as_posix() if item.path.is_relative_to(tests) else ""
        if name.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if name.startswith(BROWSER):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same numbers for a test whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data: $MONOLIFT_SHARED, or ``shared`` beside the checkout. Tests that need it are skipped without."""
    folder = Path(os.environ.get("MONOLIFT_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(
            "no folder of real data: set MONOLIFT_SHARED, or put one named 'shared' beside the checkout"
        )
    return folder
