from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from d2csr.models.bodies import BODIES

AWKWARD_BODIES = Path(__file__).with_name("awkward_bodies.py")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # small work: more threads only get in each other's way


@pytest.fixture
def awkward_bodies() -> Iterator[Path]:
    """Registers the bodies of ``awkward_bodies.py`` for one test; the file's path is for other processes."""
    before = dict(BODIES)
    runpy.run_path(str(AWKWARD_BODIES))
    yield AWKWARD_BODIES
    BODIES.clear()
    BODIES.update(before)
