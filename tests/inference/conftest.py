from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

AWKWARD_BODIES = Path(__file__).with_name("awkward_bodies.py")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # small work: more threads only get in each other's way


@pytest.fixture
def awkward_bodies() -> Path:
    """Registers the bodies of ``awkward_bodies.py`` for one test; the file's path is for other processes."""
    runpy.run_path(str(AWKWARD_BODIES))
    return AWKWARD_BODIES
