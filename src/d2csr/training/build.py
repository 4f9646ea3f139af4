"""Construction of a training task from its settings, and checks of tasks and data modules of other packages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.optim.lr_scheduler import ReduceLROnPlateau

from d2csr.checks import OPTIMIZATIONS, flag, keys_below, number, one_of, whole_number
from d2csr.errors import ConfigError
from d2csr.losses import DivergenceLoss
from d2csr.models.architectures import architecture_of
from d2csr.models.initialization import INITIALIZATIONS, initialize_as_interpolation, initialize_as_official
from d2csr.schedules import DivergenceWeightSchedule
from d2csr.training.modes import AlternatingTask, JointTask, SequentialTask
from d2csr.training.scheduling import SchedulerFactory, class_name
from d2csr.training.task import LOSSES, D2CSRTask, Loss, OptimizerFactory

TASKS: dict[str, type[D2CSRTask]] = {task.optimization: task for task in (AlternatingTask, JointTask, SequentialTask)}

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")
# Modes that record CUDA graphs, whose outputs, gradients too, are overwritten by the next batch.
_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")

# Arguments of torch's optimizers that are numbers from 0 up.
_RATES = ("lr", "eps", "weight_decay", "momentum", "dampening", "alpha", "rho")


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
        init: the initial weights: ``torch`` (the defaults of PyTorch's layers), ``official`` or ``interpolation``: see
            :mod:`d2csr.models.initialization`.
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
    if divergence_epochs is not None:
        whole_number("divergence_epochs", divergence_epochs)
    schedule = dict(divergence)
    with keys_below("divergence"):
        gradient = flag("gradient", schedule.pop("gradient"))
        weight = DivergenceWeightSchedule(**schedule)
    _check_losses(losses)
    task = _task_class(optimization, network)(
        network,
        losses=losses,
        divergence=weight,
        divergence_gradient=gradient,
        optimizer=optimizer,
        scheduler=_check_factories(optimizer, scheduler),
        scheduler_interval=one_of("scheduler_interval", scheduler_interval, ("epoch", "step")),
        divergence_epochs=divergence_epochs,
        protocol=protocol,
        ema_decay=ema_decay,
    )
    _check_leaves(task)
    return _prepared(task, init, activation_checkpointing, compile)


def _prepared(task: D2CSRTask, init: str, activation_checkpointing: bool, compile: str | None) -> D2CSRTask:
    """Draw the initial weights, set how the networks are computed, and return the task."""
    if one_of("init", init, INITIALIZATIONS) == "official":
        initialize_as_official(task.network)
    elif init == "interpolation":
        initialize_as_interpolation(task.network)
    task.network.divergence.activation_checkpointing = flag("activation_checkpointing", activation_checkpointing)
    if compile is not None:
        task.compile_networks(one_of("compile", compile, COMPILE_MODES))
    return task


def _task_class(optimization: str, network: Mapping[str, Any]) -> type[D2CSRTask]:
    """Return the task of a mode; where the fusion has nothing to train, one optimizer takes one step for each batch."""
    kind = TASKS[one_of("optimization", optimization, OPTIMIZATIONS)]
    if architecture_of(network).learned_fusion:
        return kind
    if kind is SequentialTask:
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


def _check_leaves(task: D2CSRTask) -> None:
    """Compare the divergence loss with the network now: by the paper's schedule, it is called after 200 epochs."""
    loss, leaves = task.losses["divergence"], task.network.tree.num_leaves
    if isinstance(loss, DivergenceLoss) and loss.num_leaves != leaves:
        raise ConfigError(
            f"losses.divergence.branching: makes {loss.num_leaves} leaves, but the network has {leaves}. Set "
            "network.branching instead, which both use."
        )


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


def check_modules(task: Any, datamodule: Any) -> None:
    """Check that a task and a data module of any package have the methods that training calls.

    Raises:
        ConfigError: one of them has another type, or lacks a method.
    """
    methods, advice = ("training_step", "configure_optimizers"), " A network of your own is a body: docs/bodies.md."
    _check_methods("model", task, pl.LightningModule, methods, advice)
    _check_methods("data", datamodule, pl.LightningDataModule, ("train_dataloader",), "")


def _check_methods(key: str, module: Any, kind: type, methods: tuple[str, ...], advice: str) -> None:
    def has(name: str) -> bool:
        return is_overridden(name, module, kind) if is_kind else callable(getattr(module, name, None))

    is_kind = isinstance(module, kind)
    missing = ", ".join(name for name in methods if not has(name))
    lacks = f" It lacks {missing}." if missing else ""
    if not is_kind:
        raise ConfigError(f"{key}._target_: {class_name(module)} is no {kind.__name__}.{lacks}{advice}")
    if missing:
        raise ConfigError(f"{key}._target_: {class_name(module)} is incomplete.{lacks}")


def require_own(task: Any, key: str) -> None:
    """Refuse a setting that needs the network of this package."""
    if not isinstance(task, D2CSRTask):
        raise ConfigError(f"{key}: {class_name(task)} is not a task of d2csr; load the weights in its constructor.")


def check_accumulation(task: Any, trainer: pl.Trainer) -> None:
    """Raise a ConfigError if gradients are accumulated over CUDA graphs: torch would fail at the second batch."""
    mode = getattr(task, "compile_mode", None)
    if mode in _CUDA_GRAPHS and trainer.accumulate_grad_batches != 1:
        raise ConfigError(
            f"model.compile: {mode} records CUDA graphs, which cannot accumulate gradients "
            f"(trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}). Set model.compile=default, or raise "
            "data.batch_size instead."
        )
