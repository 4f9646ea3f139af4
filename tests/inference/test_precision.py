"""Arithmetic of inference on a GPU, as far as its flags show it."""

from __future__ import annotations

import pytest
import torch
from torch.backends import cudnn

from d2csr.inference import Inference


@pytest.fixture
def seen(random_model, monkeypatch):
    """Run inference in a precision, and return the flags of torch in trunk and fusion."""

    def run(precision, **settings):
        model, found = random_model(2), set()
        for part in (model.divergence.head, model.convergence):
            part.register_forward_pre_hook(
                lambda *_: found.add((cudnn.allow_tf32, torch.get_float32_matmul_precision(), cudnn.benchmark))
            )
        Inference(precision=precision, **settings)(model, torch.rand(1, 3, 20, 14))
        return found

    monkeypatch.setattr(cudnn, "benchmark", True)  # as in a training
    return run


@pytest.mark.parametrize("settings", [{}, {"mode": "tiles", "tile": 12}], ids=["strips", "tiles"])
@pytest.mark.parametrize(("precision", "tf32"), [("32", False), (32, False), ("tf32", True), ("bf16", False)])
def test_float32_is_ieee_unless_tf32_is_asked_for(precision, tf32, settings, seen) -> None:
    assert seen(precision, **settings) == {(tf32, "high" if tf32 else "highest", False)}
    assert cudnn.allow_tf32
    assert cudnn.benchmark


def test_on_a_cpu_tf32_changes_nothing(random_model) -> None:
    model, lr = random_model(2), torch.rand(1, 3, 20, 14)
    assert torch.equal(Inference(precision="tf32")(model, lr), Inference()(model, lr))
