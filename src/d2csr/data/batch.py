"""Contract of a batch, its check for other data modules, and conversions to tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2csr.data.dataset import PADDING, to_planes
from d2csr.errors import DataError

#: A batch of N pairs:
#:
#: * ``lr``: N×3×H×W, RGB, uint8 from the loader, float32 in [0, 1] on the device;
#: * ``hr``: N×3×sH×sW, the same;
#: * ``index``: N numbers of pairs, int64; :data:`PADDING` for images that must not count. Optional.
#: * ``error``: a list of messages, in place of images that could not be read. Only in distributed runs
#:   (:class:`d2csr.data.dataset.ErrorReportingDataset`).
Batch = dict[str, Tensor]

_CONTRACT = "A batch is a dict with lr and hr, or a tuple (lr, hr)"
_TOLERANCE = 0.1  # resampling overshoots


def without_padding(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return LR, N×3×H×W, and HR, N×3×sH×sW, without padding; N may be 0."""
    lr, hr = batch["lr"], batch["hr"]
    if "index" not in batch:
        return lr, hr
    counts = batch["index"] != PADDING
    return lr[counts], hr[counts]


def to_tensor(image: np.ndarray | Tensor) -> Tensor:
    """Return H×W×3 as 3×H×W: a copy of an array, or a view of a tensor."""
    return torch.as_tensor(to_planes(image))


def to_float(batch: Batch) -> Batch:
    """Return a batch with its uint8 images, 0 to 255, as float32 in [0, 1]; other values stay as they are."""

    def convert(value: Tensor) -> Tensor:
        return value.float() / 255 if isinstance(value, Tensor) and value.dtype == torch.uint8 else value

    return {name: convert(value) for name, value in batch.items()}


def as_batch(batch: Any, scale: int, *, wait: bool = True) -> Batch:
    """Return a batch of any data module as a :data:`Batch` of floats.

    Args:
        batch: a dict with ``lr``, N×3×H×W, and ``hr``, N×3×sH×sW, RGB, both uint8 or floats in [0, 1]; or these two in
            a tuple or list. Other entries of a dict are kept.
        scale: the scale s of the network.
        wait: check the range of floats on a GPU too, for which the host waits.

    Raises:
        DataError: it is anything else; the message says what is missing.
    """
    if isinstance(batch, tuple | list) and len(batch) == 2:
        batch = dict(zip(("lr", "hr"), batch, strict=True))
    if not isinstance(batch, dict):
        got = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else type(batch).__name__
        raise DataError(f"{_CONTRACT}; the data module gives a {got}.")
    for name in ("lr", "hr"):
        if name not in batch:
            raise DataError(f"{_CONTRACT}; the data module gives {', '.join(map(str, batch))}, without {name}.")
        _check(name, batch[name], wait)
    lr, hr = batch["lr"].shape, batch["hr"].shape
    if hr != (lr[0], 3, scale * lr[2], scale * lr[3]):
        raise DataError(f"{_CONTRACT}; at scale {scale}, lr of {list(lr)} does not fit hr of {list(hr)}.")
    return to_float(batch)


def _check(name: str, images: Any, wait: bool) -> None:
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
        got = f"shape {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise DataError(f"{_CONTRACT}; {name} must be a tensor N×3×H×W, got {got}.")
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise DataError(f"{_CONTRACT}; {name} must be uint8 or float, got {images.dtype}.")
    if images.is_cuda and not wait:
        return
    low, high = (value.item() for value in images.aminmax())
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise DataError(f"{_CONTRACT}; {name} must be in [0, 1], got values from {low:.3g} to {high:.3g}.")
