from __future__ import annotations

import pytest
import torch

from d2csr.errors import ConfigError
from d2csr.training import build_task


def test_networks_that_recompute_their_activations_are_built(tiny):
    task = build_task(optimization="joint", activation_checkpointing=True, **tiny)
    assert task.network.divergence.activation_checkpointing
    assert not build_task(optimization="joint", **tiny).network.divergence.activation_checkpointing


def test_a_mode_of_compiling_that_there_is_not_is_named(tiny):
    with pytest.raises(ConfigError, match=r"model\.compile: .*reduce-overhead.*'fast'"):
        build_task(optimization="joint", compile="fast", **tiny)


@pytest.mark.slow
def test_compiled_networks_train_to_the_same_weights_under_the_same_names(tiny, batches, fit, monkeypatch):
    """By torch.compile itself, but for the generated code, which would take a minute and a C++ compiler."""
    made, real = [], torch.compile

    def compile_quickly(function, mode):
        made.append(mode)
        return real(function, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", compile_quickly)
    weights = []
    for mode in (None, "reduce-overhead"):
        torch.manual_seed(0)
        task = build_task(optimization="alternating", compile=mode, optimizer={"lr": 0.01, "eps": 1e-3}, **tiny)
        fit(task, batches)
        weights.append(task.network.state_dict())
    plain, compiled = weights
    assert made == ["reduce-overhead"] * 2
    assert compiled.keys() == plain.keys()
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-5)
