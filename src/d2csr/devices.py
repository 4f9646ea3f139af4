"""Several devices, as arguments of Lightning's Trainer ask for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy

from d2csr.checks import shown, whole_number
from d2csr.errors import ConfigError
from d2csr.launcher_watch import end_with_launcher


def needs_ddp(settings: Mapping[str, Any]) -> bool:
    """Return whether arguments of Lightning's Trainer ask for ``ddp``, by its name or by several devices."""
    strategy, nodes = (
        settings.get("strategy", "auto"),
        whole_number("num_nodes", settings.get("num_nodes", 1), most=100_000),
    )
    return strategy == "ddp" or (strategy == "auto" and (_number_of_devices(settings) > 1 or nodes > 1))


def inference_strategy(settings: Mapping[str, Any]) -> Any:
    """Return the strategy of an evaluation or an upscaling, from arguments of Lightning's Trainer.

    A rank that has finished waits for the others, perhaps for hours, since images differ in size.

    Raises:
        ConfigError: ``devices`` is impossible, or SLURM shows this task too few GPUs.
    """
    check_visible_gpus(settings)
    ddp = needs_ddp(settings) or str(settings.get("strategy", "")).startswith("ddp")
    if ddp:
        end_with_launcher()
    return DDPStrategy(timeout=timedelta(days=7)) if ddp else settings.get("strategy", "auto")


def check_visible_gpus(settings: Mapping[str, Any]) -> None:
    """Raise a ConfigError for several GPUs of which SLURM shows each task only one: Lightning has to see all."""
    wanted, visible = _number_of_devices(settings), torch.cuda.device_count()
    if "SLURM_PROCID" in os.environ and visible == 1 < wanted and settings.get("accelerator") != "cpu":
        raise ConfigError(
            f"devices: {wanted} GPUs are needed on this node, but SLURM shows this task only one of them. Ask for them "
            f"by --gpus-per-node={wanted} or --gres=gpu:{wanted}, in place of --gpus-per-task or --gpu-bind."
        )


def _number_of_devices(settings: Mapping[str, Any]) -> int:
    """Return the number that ``devices`` asks for: ``2``, ``"2"``, ``[0, 1]``, ``"0,1"``, or all GPUs of a machine.

    Anything else is a ConfigError: Lightning takes ``True`` for 1, and does not name the argument.
    """
    devices = settings.get("devices", "auto")
    if isinstance(devices, str) and "," in devices:
        devices = [index for index in devices.split(",") if index.strip()]
    if isinstance(devices, list | tuple):
        return len(devices)
    if str(devices) in ("auto", "-1"):
        return max(1, torch.cuda.device_count()) if settings.get("accelerator", "auto") != "cpu" else 1
    count = int(devices) if isinstance(devices, str) and devices.isdecimal() else devices
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(
            "devices: must be a whole number from 1 up, a list of GPUs such as [0,1], or -1 or auto for all, got "
            f"{shown(devices)}."
        )
    return count
