"""Inference of networks that a training has compiled."""

from __future__ import annotations

import pytest
import torch

from d2csr.inference import Inference


def test_inference_uses_neither_compiled_network(random_model, difference, monkeypatch) -> None:
    """They would be compiled again for each shape of an image or strip."""

    def compiled(*args, **kwargs):
        raise AssertionError("the compiled network is called")

    model, lr = random_model(2), torch.rand(1, 3, 20, 14)
    expected, seen = Inference()(model, lr), []
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled)
    for network in (model.divergence, model.convergence):
        network.compile()
    with pytest.raises(AssertionError, match="the compiled network"):
        model(lr)
    model.convergence.register_forward_hook(lambda *_: seen.append(True))
    assert torch.equal(Inference()(model, lr), expected)
    assert seen  # its hooks are called as ever
