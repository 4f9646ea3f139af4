"""Training steps on a simulated GPU: every tensor is there, and the host never waits for a value or a copy.

A backward pass needs a real device; here the gradients are given.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from d2csr.callbacks.gradient_clipping import GradientClipping
from d2csr.callbacks.training_log import statistics
from d2csr.losses import _pairs
from d2csr.optimizers import with_fused_step
from fake_gpu import fake_gpu, on_fake_gpu
from helpers import build_task


@pytest.fixture(autouse=True)
def _forget_constants():
    """Those of the simulated device would be found on a real one."""
    _pairs.cache_clear()
    yield
    _pairs.cache_clear()


def attach(task):
    """Give a task what it needs of a trainer; return a function that takes a step and returns its outputs."""
    task._trainer = SimpleNamespace(current_epoch=0, callback_metrics={}, global_step=0, training=True)
    split = task.optimization == "alternating"
    networks = (task.network.divergence, task.network.convergence) if split else (task.network,)
    factory = with_fused_step(task.optimizer_factory, "cuda", "32-true")
    optimizers = [factory(network.parameters()) for network in networks]
    assert all(optimizer.defaults["fused"] for optimizer in optimizers)
    clipping = GradientClipping(1.0, "norm")
    for callback in (clipping, task.average):
        callback.on_fit_start(task._trainer, task)
        callback.on_train_start(task._trainer, task)

    def backward(loss):
        assert loss.is_cuda
        for parameter in task.network.parameters():
            parameter.grad = torch.ones_like(parameter)

    def step(optimizer):
        clipping.on_before_optimizer_step(task._trainer, task, optimizer)
        optimizer.step()

    def own(optimizer):
        return SimpleNamespace(optimizer=optimizer, step=lambda: step(optimizer), zero_grad=optimizer.zero_grad)

    task.optimizers = lambda: [own(optimizer) for optimizer in optimizers]
    task._trainer.strategy = SimpleNamespace(optimizer_step=lambda optimizer, closure: step(optimizer))
    task.manual_backward = backward

    def take(batch):
        outputs = task.training_step(batch, 0)
        if not task.steps_itself:
            backward(outputs["loss"])
            step(optimizers[0])
        task._trainer.global_step += 1
        task.average.on_train_batch_end(task._trainer, task)
        return outputs

    return take


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("mode", ["alternating", "joint", "sequential"])
def test_steps_with_clipping_and_average_and_the_row_of_a_log_never_wait(mode, weight, tiny):
    extra = {"divergence_epochs": 1} if mode == "sequential" else {}
    divergence = {"weight": weight, "after": -1}
    task = build_task(optimization=mode, **tiny, ema_decay=0.9, divergence=divergence, **extra)
    scale = task.network.scale
    with fake_gpu() as waits:
        on_fake_gpu(task.network)
        take = attach(task)
        batch = {name: torch.rand(2, 3, 8 * s, 8 * s, device="cuda") for name, s in (("lr", 1), ("hr", scale))}
        take(batch)  # the first step makes constants and the state of the optimizer
        waits.seen.clear()
        for _ in range(2):
            outputs = take(batch)
        row = statistics(outputs, batch["hr"], task.network.tree)
        assert {value.device.type for value in row.values()} == {"cuda"}
        assert {parameter.device.type for parameter in task.network.parameters()} == {"cuda"}
    assert waits.seen == []
