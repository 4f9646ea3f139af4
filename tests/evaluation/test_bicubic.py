from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from d2csr.data.dataset import to_tensor
from d2csr.evaluation.bicubic import bicubic


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_bicubic_equals_pillows(scale, golden):
    lr = Image.open(golden / "eval-x4" / "china_LR4.png").convert("RGB").crop((20, 10, 61, 43))
    expected = to_tensor(np.asarray(lr.resize((41 * scale, 33 * scale), Image.Resampling.BICUBIC))).float()
    found = bicubic(to_tensor(np.asarray(lr))[None] / 255, scale)[0]
    difference = ((found.clamp(0, 1) * 255).round() - expected).abs()
    assert difference.max() <= 1  # Pillow rounds to 8 bits after each of its two passes
    assert difference.mean() < 0.25


def test_bicubic_is_not_clamped():
    lr = torch.zeros(1, 3, 4, 8)
    lr[..., 4:] = 1
    found = bicubic(lr, 2)
    assert found.shape == (1, 3, 8, 16)
    assert found.max() > 1.01
    assert found.min() < -0.01
