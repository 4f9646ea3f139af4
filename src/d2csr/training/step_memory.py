"""Memory of a training step, traced on the meta device, where nothing is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from d2csr.errors import ConfigError
from d2csr.inference.plan import KERNELS, MARGIN
from d2csr.inference.trace import PeakMemory
from d2csr.losses import sum_over_leaves
from d2csr.training.task import D2CSRTask


@dataclass(frozen=True)
class StepMemory:
    """Estimated bytes on the device while a network is trained in float32."""

    weights: int  # of both networks, and their moving average if there is one
    optimizer: int  # the state of the optimizers
    # The peak of batch, activations, gradients and intermediate results, and a margin of 10 % for the allocator.
    step: int
    kernels: int = KERNELS  # compiled ones and reordered weights, as measured on a CPU; the context of CUDA needs more

    @property
    def peak(self) -> int:
        """The sum."""
        return self.weights + self.optimizer + self.step + self.kernels


def step_memory(task: D2CSRTask, batch_size: int, patch_size: int) -> StepMemory:
    """Trace the steps of a training, with the divergence loss active if it has a weight.

    The memory of Python and PyTorch comes on top.

    Args:
        task: on the meta device, as built under ``torch.device("meta")``; its network is used up.
        batch_size: patches of a step.
        patch_size: the side of an LR patch in pixels.

    Raises:
        ConfigError: body, loss or optimizer needs values and cannot run on the meta device.
    """
    network = task.network
    weights = sum(parameter.nbytes for parameter in network.parameters())
    memory = PeakMemory(4)  # bytes of a float32
    try:
        optimizers = _optimizers(task)
        with memory:
            for _ in range(2):  # the first step makes the state of the optimizer
                memory.peak = memory.bytes
                _step(task, optimizers, *_batch(batch_size, patch_size, network.scale))
    except RuntimeError as error:  # NotImplementedError is one
        raise ConfigError(
            f"the training cannot run on the meta device, so its memory is unknown ({str(error).splitlines()[0]}). "
            "Body, losses and optimizer must not need the values of tensors."
        ) from error
    tensors = [value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()]
    state = sum(value.nbytes for value in tensors if isinstance(value, Tensor))
    return StepMemory(weights * (1 if task.average is None else 2), state, int(MARGIN * (memory.peak - state)))


def _batch(batch_size: int, patch_size: int, scale: int) -> tuple[Tensor, Tensor]:
    shapes = ((batch_size, 3, side, side) for side in (patch_size, scale * patch_size))
    lr, hr = (torch.empty(shape, device="meta", memory_format=torch.channels_last) for shape in shapes)
    return lr, hr


def _optimizers(task: D2CSRTask) -> list[Optimizer]:
    """Return the optimizers of the mode: of each network in ``alternating``, of both in the others."""
    network = task.network
    alternating = task.optimization == "alternating"
    parts: list[nn.Module] = [network.divergence, network.convergence] if alternating else [network]
    return [task.optimizer_factory(part.parameters()) for part in parts]


def _step(task: D2CSRTask, optimizers: list[Optimizer], lr: Tensor, hr: Tensor) -> None:
    """Take the steps of :mod:`d2csr.training.modes` for one batch, those of both stages of ``sequential``."""
    network, losses = task.network, task.losses
    predictions = network.divergence(lr)
    loss: Tensor = sum_over_leaves(losses["reconstruction"], predictions, hr)
    if task.divergence.weight and task.divergence_gradient:
        loss = loss + losses["divergence"](predictions, hr)
    if task.optimization == "joint":
        sr, _ = network.convergence(predictions.detach())
        _minimize(loss + losses["fusion"](sr, hr), optimizers[0])
        return
    _minimize(loss, optimizers[0])
    del loss, predictions
    with torch.no_grad():
        predictions = network.divergence(lr)
    sr, _ = network.convergence(predictions)
    _minimize(losses["fusion"](sr, hr), optimizers[-1])


def _minimize(loss: Tensor, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
