from __future__ import annotations

import pytest
import torch

from d2csr.models import D2CSR


@pytest.fixture
def network() -> D2CSR:
    """A small network of scale 2 with a result that is neither its best nor its worst leaf."""
    torch.manual_seed(0)
    settings = {
        "features": 16,
        "branching": [2, 2],
        "fusion_features": 8,
        "body": {"name": "rcab", "groups": 1, "blocks": 1},
    }
    return D2CSR(scale=2, **settings).eval()
