"""Construction of a training task from its settings, which it validates."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from d2csr.checks import OPTIMIZATIONS, flag, keys_below, number, one_of, whole_number
from d2csr.errors import ConfigError
from d2csr.models.architectures import architecture_of
from d2csr.models.initialization import INITIALIZATIONS, initialize_as_official
from d2csr.schedules import DivergenceWeightSchedule
from d2csr.training.compilation import COMPILE_MODES
from d2csr.training.modes import AlternatingTask, JointTask, SequentialTask
from d2csr.training.scheduling import INTERVALS, SchedulerFactory
from d2csr.training.task import LOSSES, D2CSRTask, Loss, OptimizerFactory

TASKS: dict[str, type[D2CSRTask]] = {task.optimization: task for task in (AlternatingTask, JointTask, SequentialTask)}

# Arguments of torch's optimizers that are numbers from 0 up.
_RATES = ("lr", "eps", "weight_decay", "momentum", "dampening", "alpha", "rho")


def optimization_named(name: str) -> type[D2CSRTask]:
    """Return the task of a mode of optimization, or raise :class:`ConfigError`."""
    return TASKS[one_of("optimization", name, OPTIMIZATIONS)]


def build_task(
    *,
    optimization: str,
    network: dict[str, Any],
    init: str,
    losses: Mapping[str, Loss],
    divergence: Mapping[str, Any],
    optimizer: OptimizerFactory,
    scheduler: SchedulerFactory | None,
    scheduler_interval: str,
    divergence_epochs: int | None,
    protocol: str,
    ema_decay: float | None,
    activation_checkpointing: bool,
    compile: str | None,
) -> D2CSRTask:
    """Build a training task.

    Args:
        optimization: the mode: ``alternating``, ``joint`` or ``sequential``. Without a learned fusion the first two are
            the same.
        network: the arguments of :func:`d2csr.models.build_network`.
        init: the initial weights: ``torch`` (the defaults of PyTorch's layers) or ``official``, as
            :func:`d2csr.models.initialization.initialize_as_official` draws them.
        losses: ``reconstruction`` and ``fusion``, called with images M×3×H×W and HR of the same shape, and
            ``divergence``, called with predictions N×K×3×H×W and HR N×3×H×W. Each returns a scalar.
        divergence: the arguments of :class:`d2csr.schedules.DivergenceWeightSchedule`, and ``gradient``: ``False``
            detaches the divergence loss, as the official code does.
        optimizer: builds an optimizer from parameters.
        scheduler: builds the learning-rate scheduler of an optimizer; ``None`` keeps the learning rate constant.
        scheduler_interval: ``epoch`` or ``step``.
        divergence_epochs: epochs of the first stage of ``sequential``; ``None`` uses half of ``max_epochs``.
        protocol: the protocol of PSNR and SSIM in validation.
        ema_decay: of :class:`d2csr.callbacks.EMA`; ``None`` averages no weights.
        activation_checkpointing: compute activations again in the backward pass: less memory, a longer step.
        compile: the mode of ``torch.compile``; ``None`` does not compile.

    Raises:
        ConfigError: a setting has an impossible value; the message begins with its name.
    """
    kind = optimization_named(optimization)
    one_of("init", init, INITIALIZATIONS)
    one_of("scheduler_interval", scheduler_interval, INTERVALS)
    flag("activation_checkpointing", activation_checkpointing)
    if compile is not None:
        one_of("compile", compile, COMPILE_MODES)
    if divergence_epochs is not None:
        whole_number("divergence_epochs", divergence_epochs)
    schedule = dict(divergence)
    with keys_below("divergence"):
        gradient = flag("gradient", schedule.pop("gradient"))
        weight = DivergenceWeightSchedule(**schedule)
    _check_losses(losses)
    scheduler = _check_factories(optimizer, scheduler)
    if not architecture_of(network).learned_fusion:
        kind = _without_fusion(optimization)
    task = kind(
        network,
        losses=losses,
        divergence=weight,
        divergence_gradient=gradient,
        optimizer=optimizer,
        scheduler=scheduler,
        scheduler_interval=scheduler_interval,
        divergence_epochs=divergence_epochs,
        protocol=protocol,
        ema_decay=ema_decay,
    )
    if init == "official":
        initialize_as_official(task.network)
    task.network.divergence.activation_checkpointing = activation_checkpointing
    if compile is not None:
        task.compile_networks(compile)
    return task


def _without_fusion(optimization: str) -> type[D2CSRTask]:
    """Return the task for a network whose fusion has nothing to train: one step of one optimizer for each batch."""
    if optimization == "sequential":
        raise ConfigError(
            "optimization: sequential trains the fusion after the predictions, and this network's fusion "
            "has no parameters; set optimization=joint."
        )
    return JointTask


def _check_losses(losses: Mapping[str, Loss]) -> None:
    if set(losses) != set(LOSSES):
        raise ConfigError(f"losses: must be {', '.join(LOSSES)}, got {', '.join(map(str, losses))}.")
    for name, loss in losses.items():
        if not callable(loss):
            raise ConfigError(f"losses.{name}: must be a loss, such as torch.nn.MSELoss, got {loss!r}.")


def _check_factories(optimizer: OptimizerFactory, scheduler: SchedulerFactory | None) -> SchedulerFactory | None:
    """Find impossible settings by building both for one parameter; return the factory of the scheduler.

    A ``ReduceLROnPlateau`` gets the mode ``max``, since it follows the PSNR.
    """
    settings = getattr(optimizer, "keywords", {})
    for name in _RATES:
        if name in settings:
            number(f"optimizer.{name}", settings[name], least=0)
    for index, beta in enumerate(settings.get("betas", ())):
        number(f"optimizer.betas.{index}", beta, least=0, below=1)
    if isinstance(scheduler, partial) and scheduler.func is ReduceLROnPlateau:
        one_of("scheduler.mode", scheduler.keywords.get("mode", "max"), ["max"])
        scheduler = partial(scheduler, mode="max")
    part = "optimizer"
    try:
        built = optimizer([torch.nn.Parameter(torch.zeros(1))])
        part = "scheduler"
        if scheduler is not None:
            with keys_below(part):
                scheduler(built)
    except (TypeError, ValueError, IndexError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"{part}: {error}") from None
    return scheduler
