from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from d2csr.data.batch import to_tensor
from d2csr.evaluation.baselines import ORACLES, bicubic, oracle


def test_the_best_leaf_is_taken_at_each_pixel_or_block():
    hr = torch.zeros(1, 3, 1, 10)
    first, second = torch.full((1, 3, 1, 10), 0.3), torch.full((1, 3, 1, 10), 0.2)
    first[..., :3] = 0.1  # three of eight pixels, and one of the last two
    first[..., 8] = 0.0
    predictions = torch.stack([first, second], dim=1)
    assert oracle(predictions, hr, 1)[0, 0, 0].tolist() == torch.tensor([0.1] * 3 + [0.2] * 5 + [0.0, 0.2]).tolist()
    # 3 · 0.1² + 5 · 0.3² = 0.48 > 8 · 0.2² = 0.32, and 0.3² = 0.09 > 2 · 0.2² = 0.08
    assert oracle(predictions, hr, 8)[0, 0, 0].tolist() == second[0, 0, 0].tolist()


def test_the_error_is_summed_over_the_channels():
    hr = torch.zeros(1, 3, 1, 1)
    red, grey = torch.tensor([0.5, 0, 0]).view(1, 3, 1, 1), torch.full((1, 3, 1, 1), 0.3)
    assert torch.equal(oracle(torch.stack([red, grey], dim=1), hr, 1), red)  # 0.25 < 0.27


def test_strips_change_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    hr, predictions = torch.rand(1, 3, 37, 9, generator=generator), torch.rand(1, 3, 3, 37, 9, generator=generator)
    expected = [oracle(predictions, hr, block) for block in ORACLES.values()]
    monkeypatch.setattr("d2csr.evaluation.baselines._STRIP", 16)
    assert all(torch.equal(oracle(predictions, hr, b), e) for b, e in zip(ORACLES.values(), expected, strict=True))


def test_no_leaf_and_no_larger_block_is_better():
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(2, 3, 19, 21, generator=generator)
    predictions = torch.rand(2, 4, 3, 19, 21, generator=generator)
    errors = [(oracle(predictions, hr, block) - hr).square().mean() for block in ORACLES.values()]
    assert errors[0] < errors[1] < min((leaf - hr).square().mean() for leaf in predictions.unbind(1))


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
