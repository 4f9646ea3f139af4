"""What a batch is, once it is on the device."""

from __future__ import annotations

import torch
from torch import Tensor

# ``lr``, N×3×H×W, and ``hr``, N×3×sH×sW, RGB floats in [0, 1], and ``index``, N numbers of pairs, or that of a filler,
# which must not count; see :mod:`d2csr.data.shards`. Batches that come from elsewhere may do without ``index``. A batch
# with ``error``, a list of texts, stands in for one that could not be read; see :mod:`d2csr.processes`.
Batch = dict[str, Tensor]


def to_float(batch: Batch) -> Batch:
    """Return a batch whose uint8 images (0 to 255) are float32 in [0, 1]; everything else is handed on as it is."""

    def convert(value: Tensor) -> Tensor:
        return value.float() / 255 if isinstance(value, Tensor) and value.dtype == torch.uint8 else value

    return {name: convert(value) for name, value in batch.items()}
