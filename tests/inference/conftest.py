from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from d2csr.models import D2CSR

ModelFactory = Callable[..., D2CSR]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # small work: more threads only get in each other's way


@pytest.fixture
def random_model() -> ModelFactory:
    """Builds small models with weights far from the initial ones: nothing may hide behind zeros or symmetry."""

    def build(scale: int = 4, branching: Sequence[int] = (2, 2), features: int = 16, seed: int = 0) -> D2CSR:
        torch.manual_seed(seed)
        model = D2CSR(scale, features=features, groups=2, blocks=2, branching=branching, fusion_features=24).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 4:
                    fan_in = parameter[0].numel()
                    parameter.normal_(0, 0.7 * fan_in**-0.5)
                else:
                    parameter.normal_(0, 0.1)
        return model

    return build


@pytest.fixture
def plain() -> Callable[[D2CSR, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The plain forward: fused image, predictions, weights."""

    def run(model: D2CSR, lr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            predictions = model.divergence(lr)
            sr, weights = model.convergence(predictions)
            torch.testing.assert_close(model(lr), sr, rtol=0, atol=0)
        return sr, predictions, weights

    return run


@pytest.fixture
def difference() -> Callable[[Tensor, Tensor], float]:
    """The largest absolute difference, as a share of the range of the second."""

    def measure(actual: Tensor, expected: Tensor) -> float:
        assert actual.shape == expected.shape
        spread = (expected.max() - expected.min()).clamp(min=1e-3)
        return ((actual - expected).abs().max() / spread).item()

    return measure
