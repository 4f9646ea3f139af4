"""Super-resolving one image in Python."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from d2csr.inference.run import Inference, Progress
from d2csr.models import D2CSR

AnyImage = TypeVar("AnyImage", Image.Image, np.ndarray, Tensor)


def upscale(
    model: D2CSR,
    image: AnyImage,
    *,
    memory: str = "auto",
    mode: str = "auto",
    tile: int | None = None,
    self_ensemble: bool = False,
    precision: str | int = "32",
    progress: Progress | None = None,
) -> AnyImage:
    """Super-resolve an image of any size; what goes in comes out, s times as large.

    Args:
        model: as :func:`d2csr.load_model` gives it, on any device.
        image: a PIL image (converted to RGB), an H×W×3 array (uint8, or floats in [0, 1]), or a tensor, 3×H×W or
            N×3×H×W, floats in [0, 1].
        memory: what it may take, beside what the process holds already: ``auto``, or a figure such as ``4GB``.
        mode: ``auto``; ``strips``: exact, whatever the budget says; ``tiles``: approximate, even if there is room.
        tile: the side of a tile in LR pixels; by default the largest that fits.
        self_ensemble: the mean over the eight orientations of the image, in eight times the time.
        precision: ``32``, or ``bf16`` or ``16`` for autocast.
        progress: called with the fraction of the work that is done, up to 1.

    Returns:
        The same kind: a PIL image in RGB; an sH×sW×3 array of the same dtype; a tensor on the device, and with the
        dtype and dimensions of the input. Clamped to the range of its kind.

    Raises:
        TypeError: the image is of no known kind.
        ValueError: its shape is not that of an RGB image.
        ConfigError: an option is out of its range, or the memory does not suffice even for the smallest tiles.
    """
    inference = Inference(memory, mode, tile, self_ensemble, precision)
    if isinstance(image, Image.Image):
        return Image.fromarray(_upscale_array(model, np.asarray(image.convert("RGB")), inference, progress))
    if isinstance(image, np.ndarray):
        return _upscale_array(model, image, inference, progress)
    if isinstance(image, Tensor):
        return _upscale_tensor(model, image, inference, progress)
    raise TypeError(f"expected a PIL image, a numpy array or a tensor, got {type(image).__name__}.")


def _upscale_array(model: D2CSR, image: np.ndarray, inference: Inference, progress: Progress | None) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or not (image.dtype == np.uint8 or image.dtype.kind == "f"):
        raise ValueError(
            f"expected an H×W×3 array, uint8 or floats in [0, 1], got {image.dtype} of shape {image.shape}."
        )
    lr = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))
    if image.dtype != np.uint8:
        return _upscale_tensor(model, lr, inference, progress).permute(1, 2, 0).numpy().astype(image.dtype)
    sr = _upscale_tensor(model, lr.div_(255), inference, progress)
    return sr.mul_(255).round_().byte().permute(1, 2, 0).contiguous().numpy()


def _upscale_tensor(model: D2CSR, image: Tensor, inference: Inference, progress: Progress | None) -> Tensor:
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or not image.is_floating_point() or 0 in image.shape:
        raise ValueError(
            f"expected a tensor, 3×H×W or N×3×H×W, floats in [0, 1], got {image.dtype} of shape {tuple(image.shape)}."
        )
    batch = image if image.ndim == 4 else image.unsqueeze(0)
    sr = inference(model, batch, progress).clamp_(0, 1)
    return (sr if image.ndim == 4 else sr[0]).to(image.device, image.dtype)
