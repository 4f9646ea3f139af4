from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import d2csr.training
from d2csr.errors import ConfigError
from d2csr.training.build import COMPILE_MODES, check_accumulation
from helpers import build_task, model_config


def test_networks_that_recompute_their_activations_are_built(tiny):
    task = build_task(optimization="joint", activation_checkpointing=True, **tiny)
    assert task.network.divergence.activation_checkpointing
    assert not build_task(optimization="joint", **tiny).network.divergence.activation_checkpointing


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compile": "fast"}, "compile: .*reduce-overhead.*'fast'"),
        ({"init": "kaiming"}, "init: must be one of torch, official, interpolation, got 'kaiming'"),
        ({"features": 64.5}, "network.features: must be a whole number from 1 to 4096, got 64.5"),
        ({"features": 10**10}, "network.features: must be a whole number from 1 to 4096, got 10000000000"),
        ({"fusion_features": 10**10}, "network.fusion_features: must be a whole number from 1 to 4096, got 100000"),
        ({"features": True}, "network.features: must be a whole number from 1 to 4096, got True"),
        ({"blocks": 0}, "network.body.blocks: must be a whole number from 1 to 1024, got 0"),
        ({"scheduler_interval": "week"}, "scheduler_interval: must be one of epoch, step, got 'week'"),
        ({"ema_decay": 1}, "ema_decay: must be a number"),
        ({"optimizer": {"lr": "abc"}}, "optimizer.lr: must be a number at least 0, got 'abc'"),
        ({"optimizer": {"weight_decay": True}}, "optimizer.weight_decay: must be a number at least 0, got True"),
        ({"optimizer": {"betas": [0.9, 1.5]}}, "optimizer.betas.1: must be a number"),
        ({"optimizer": {"betas": [0.9]}}, "optimizer: "),
        ({"optimizer": {"decay_every": 0}}, "scheduler.decay_every: must be a whole number from 1 up, got 0"),
        ({"divergence": {"weight": -1}}, "divergence.weight: must be a number at least 0, got -1"),
        ({"divergence": {"gradient": 1}}, "divergence.gradient: must be true or false, got 1"),
        ({"losses": {"fusion": None}}, "losses.fusion: must be a loss"),
        (
            {"losses": {"divergence": {"branching": [3]}}},
            "losses.divergence.branching: makes 3 leaves, but the network has 4. Set network.branching instead",
        ),
    ],
)
def test_an_impossible_setting_is_named(settings, message, tiny):
    with pytest.raises(ConfigError, match=rf"^{re.escape(message) if '*' not in message else message}"):
        build_task(optimization="joint", **{**tiny, **settings})


PATHS = {"architecture": "ensemble", "scale": 2, "features": 8, "body": {"name": "edsr", "blocks": 1}, "paths": 2}


@pytest.mark.parametrize("optimization", ["alternating", "joint"])
def test_each_path_of_an_ensemble_trains_as_if_it_were_alone(optimization, batches, fit):
    def trained(network, weights=None):
        torch.manual_seed(0)
        task = build_paths(network, optimization)
        if weights is not None:
            task.network.load_state_dict(weights)
        before = {name: value.clone() for name, value in task.network.state_dict().items()}
        fit(task, batches)
        return before, task.network.state_dict()

    before, after = trained(PATHS)
    first = {name: value for name, value in before.items() if name.split(".")[2] == "1"}
    _, alone = trained({**PATHS, "paths": 1}, first)
    for name, value in alone.items():
        torch.testing.assert_close(after[name], value, rtol=1e-4, atol=1e-6)
        assert not torch.equal(value, first[name])


def test_an_ensemble_has_no_second_stage():
    with pytest.raises(ConfigError, match=r"optimization: sequential trains the fusion .* set optimization=joint"):
        build_paths(PATHS, "sequential")


def build_paths(network, optimization):
    model = OmegaConf.to_container(model_config(optimization=optimization).model, resolve=True)
    parts = {name: instantiate(model.pop(name), _convert_="all") for name in ("losses", "optimizer", "scheduler")}
    losses = {**parts.pop("losses"), "divergence": torch.nn.MSELoss()}  # not called: its weight is zero
    model.update(network=network, divergence={**model["divergence"], "weight": 0})
    model.pop("_target_")
    return d2csr.training.build_task(**model, **parts, losses=losses)


def test_the_seed_decides_the_initial_weights_and_the_checkpoint_does_not_need_their_kind(tiny):
    def weights(seed, **settings):
        torch.manual_seed(seed)
        task = build_task(optimization="joint", **tiny, **settings)
        assert "init" not in {**task.hparams, **task.network.settings}
        return torch.cat([p.flatten() for p in task.network.parameters()])

    assert torch.equal(weights(3, init="official"), weights(3, init="official"))
    assert not torch.equal(weights(3, init="official"), weights(4, init="official"))
    assert not torch.equal(weights(3, init="official"), weights(3))
    assert torch.equal(weights(3), weights(3, init="torch"))


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


@pytest.mark.parametrize("mode", [*COMPILE_MODES, None])
def test_gradients_are_not_accumulated_over_cuda_graphs(mode):
    task = SimpleNamespace(compile_mode=mode)
    check_accumulation(task, SimpleNamespace(accumulate_grad_batches=1))
    if mode in ("default", None):
        check_accumulation(task, SimpleNamespace(accumulate_grad_batches=2))
        return
    with pytest.raises(ConfigError, match=rf"^model\.compile: {mode} .*accumulate_grad_batches=2.*compile=default"):
        check_accumulation(task, SimpleNamespace(accumulate_grad_batches=2))


def test_a_task_of_another_package_may_accumulate():
    check_accumulation(object(), SimpleNamespace(accumulate_grad_batches=2))
