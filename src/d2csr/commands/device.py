"""The key ``device``: ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""

from __future__ import annotations

import torch

from d2csr.errors import ConfigError


def find_device(device: str | None) -> torch.device:
    """Return a device of this machine; None is CUDA if available, else MPS, else the CPU.

    Raises:
        ConfigError: the device is unknown or not available.
    """
    present = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if device is None:
        return torch.device(next(kind for kind, count in present.items() if count))
    kind, _, index = str(device).replace("gpu", "cuda").partition(":")
    if kind not in present or not (index.isdecimal() or ":" not in str(device)):
        raise ConfigError(f"device: must be cpu, cuda, cuda:1 or mps, got {device!r}.")
    if int(index or 0) >= present[kind]:
        raise ConfigError(f"device={device}: there is no such device here, or torch was built without it.")
    return torch.device(kind, int(index)) if index else torch.device(kind)
