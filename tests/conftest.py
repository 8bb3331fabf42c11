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
