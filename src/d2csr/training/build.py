"""From the settings of a configuration to the task that trains by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from d2csr.errors import ConfigError
from d2csr.training.modes import AlternatingTask, JointTask, SequentialTask
from d2csr.training.task import D2CSRTask

OPTIMIZATIONS: dict[str, type[D2CSRTask]] = {
    task.optimization: task for task in (AlternatingTask, JointTask, SequentialTask)
}

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")


def optimization_named(name: str) -> type[D2CSRTask]:
    """Return the task of the optimization mode of that name.

    Raises:
        ConfigError: there is no such mode.
    """
    if name not in OPTIMIZATIONS:
        raise ConfigError(f"optimization: must be one of {', '.join(OPTIMIZATIONS)}, got {name!r}.")
    return OPTIMIZATIONS[name]


def build_task(
    *,
    optimization: str,
    scale: int,
    features: int = 64,
    groups: int = 2,
    blocks: int = 4,
    branching: Sequence[int] = (2, 2),
    reduction: int = 16,
    fusion_features: int = 64,
    optimizer: dict[str, Any] | None = None,
    divergence: dict[str, Any] | None = None,
    divergence_scope: str = "batch",
    divergence_epochs: int | None = None,
    protocol: str = "d2csr",
    ema_decay: float | None = None,
    activation_checkpointing: bool = False,
    compile: str | None = None,
) -> D2CSRTask:
    """Build the task of an optimization mode.

    Args:
        optimization: ``alternating``, ``joint`` or ``sequential``.
        scale: this and the settings up to ``fusion_features`` are those of :class:`d2csr.models.D2CSR`.
        features: see there.
        groups: see there.
        blocks: see there.
        branching: see there.
        reduction: see there.
        fusion_features: see there.
        optimizer: the settings of :class:`d2csr.training.settings.AdamSettings`.
        divergence: the settings of :class:`d2csr.training.settings.DivergenceSettings`.
        divergence_scope: ``batch`` or ``image``; see there, where it is called ``scope``.
        divergence_epochs: epochs of the divergence stage; ``sequential`` alone uses it.
        protocol: by which validation reports PSNR and SSIM.
        ema_decay: see :class:`d2csr.callbacks.ema.EMA`; ``None`` averages no weights.
        activation_checkpointing: trade time for memory; see :class:`d2csr.models.divergence.DivergenceNetwork`.
        compile: ``default``, ``reduce-overhead`` (with CUDA graphs) or ``max-autotune`` compiles both networks with
            ``torch.compile`` at the first step; ``None`` does not.

    Raises:
        ConfigError: a setting has an impossible value.
    """
    kind = optimization_named(optimization)
    network = {
        "scale": scale,
        "features": features,
        "branching": list(branching) if isinstance(branching, Sequence) else branching,  # a wrong one is refused there
        "fusion_features": fusion_features,
        "body": {"name": "rcab", "groups": groups, "blocks": blocks, "reduction": reduction},
    }
    settings: dict[str, Any] = {
        "network": network,
        "optimizer": optimizer,
        "divergence": {"scope": divergence_scope, **(divergence or {})},
        "protocol": protocol,
        "ema_decay": ema_decay,
    }
    if kind is SequentialTask:
        settings["divergence_epochs"] = divergence_epochs
    if compile is not None and compile not in COMPILE_MODES:
        raise ConfigError(f"model.compile: must be null or one of {', '.join(COMPILE_MODES)}, got {compile!r}.")
    task = kind(**settings)
    task.network.divergence.activation_checkpointing = activation_checkpointing
    if compile is not None:
        task.compile_networks(compile)
    return task
