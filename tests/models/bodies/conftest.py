from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


class SinglePath(nn.Module):
    """A published network: head, body, long skip connection, tail."""

    def __init__(self, features: int, body: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, features, 3, padding=1)
        self.body = body
        self.tail = tail

    def forward(self, lr: Tensor) -> Tensor:
        features = self.head(lr)
        return self.tail(features + self.body(features))


@pytest.fixture
def single_path() -> type[SinglePath]:
    """Builds a published network of a width, a body and a tail."""
    return SinglePath


@pytest.fixture
def randomised() -> Callable[[nn.Module], nn.Module]:
    """Gives a module weights far from the initial ones, so that none is hidden by zeros or symmetry."""

    def randomise(module: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in module.parameters():
                spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 and parameter.shape[0] > 1 else 0.3
                parameter.normal_(0, spread, generator=generator)
        return module.eval()

    return randomise


@pytest.fixture
def copy_in_order() -> Callable[[nn.Module, nn.Module], None]:
    """Copies the parameters of one module to another that has the same ones in the same order."""

    def copy(source: nn.Module, target: nn.Module) -> None:
        with torch.no_grad():
            for theirs, ours in zip(source.parameters(), target.parameters(), strict=True):
                assert theirs.shape == ours.shape
                ours.copy_(theirs)

    return copy


@pytest.fixture
def parameters() -> Callable[[nn.Module], int]:
    """Counts the parameters of a module."""
    return lambda module: sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def assert_local() -> Callable[[nn.Module, int], None]:
    """Checks which inputs the middle output depends on: a square of ``receptive_field`` pixels, up to its border."""

    def check(body: nn.Module, features: int) -> None:
        side = body.receptive_field + 4
        x = torch.randn(1, features, side, side, dtype=torch.float64, requires_grad=True)
        body.double()(x)[:, :, side // 2, side // 2].sum().backward()
        used = x.grad.abs().sum(dim=(0, 1)) > 0
        assert used.any(dim=0).sum() == used.any(dim=1).sum() == body.receptive_field
        assert not used[:2].any()
        assert not used[:, :2].any()

    return check
