"""The key ``device``: ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""

from __future__ import annotations

import torch

from d2csr.errors import ConfigError

_ACCELERATORS = {"cpu": "cpu", "cuda": "gpu", "gpu": "gpu", "mps": "mps"}  # Lightning's names


def accelerator_and_index(device: str) -> tuple[str, int | None]:
    """Return Lightning's name of a device, and its index if one is stated.

    Raises:
        ConfigError: the device is unknown or not available.
    """
    kind, _, index = str(device).partition(":")
    if kind not in _ACCELERATORS or not (index.isdecimal() or str(device) == kind):
        raise ConfigError(f"device: must be cpu, cuda, cuda:1 or mps, got {device!r}.")
    present = {"gpu": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if int(index or 0) >= present.get(_ACCELERATORS[kind], 1):
        raise ConfigError(f"device={device}: there is no such device here, or torch was built without it.")
    return _ACCELERATORS[kind], int(index) if index and kind != "cpu" else None


def torch_device(device: str | None) -> torch.device:
    """Return torch's device; None is CUDA if available, else MPS, else the CPU.

    Raises:
        ConfigError: the device is unknown or not available.
    """
    if device is None:
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(kind)
    accelerator, index = accelerator_and_index(device)
    kind = {"gpu": "cuda"}.get(accelerator, accelerator)
    return torch.device(kind if index is None else f"{kind}:{index}")
