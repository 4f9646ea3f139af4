from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from d2csr.models import D2CSR


class Trap:
    """Unpickled without care, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "sprung")


@pytest.fixture
def model() -> D2CSR:
    torch.manual_seed(0)
    return D2CSR(2, 16, [3], 8, {"name": "rcab", "groups": 1, "blocks": 1, "reduction": 8})
