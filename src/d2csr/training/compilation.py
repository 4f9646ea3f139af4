"""Compilation of the networks of a training by torch.compile."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from d2csr.errors import ConfigError

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")

# Modes that record CUDA graphs, whose outputs, gradients too, are overwritten by the next batch.
_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")


def check_accumulation(task: Any, trainer: pl.Trainer) -> None:
    """Raise a ConfigError if gradients are accumulated over CUDA graphs: torch would fail at the second batch."""
    mode = getattr(task, "compile_mode", None)
    if mode in _CUDA_GRAPHS and trainer.accumulate_grad_batches != 1:
        raise ConfigError(
            f"model.compile: {mode} records CUDA graphs, which cannot accumulate gradients "
            f"(trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}). Set model.compile=default, or raise "
            "data.batch_size instead."
        )
