"""The settings of inference, inference on whole images, and its mean over orientations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from d2csr.checks import INFERENCE_MODES, flag, one_of, whole_number
from d2csr.inference.plan import Footprint, Plan, budget, make_plan, parse
from d2csr.inference.strips import Outputs, Progress, add_strips, part_of, zero_outputs
from d2csr.inference.tiles import add_tiles, probe
from d2csr.models import SRNetwork
from d2csr.precision import PRECISIONS, computing_in

_log = logging.getLogger(__name__)

ORIENTATIONS = 8


@dataclass(frozen=True)
class Inference:
    """Settings of inference, the same for every command and for :func:`d2csr.upscale`.

    Images are computed one by one. The result is that of ``model(lr)`` except for float rounding. Only an image whose
    trunk does not fit into memory is cut into tiles, which is approximate. A warning then reports the largest
    difference measured on a part of the image.

    Args:
        memory: budget on the model's device, in addition to what the process already uses (0.7 GB with torch and its
            functions for the meta device): ``auto`` for four fifths of the free memory, or a size such as ``4GB``. The
            plan rests on an estimate, which a small image may exceed by about 50 MB.
        mode: ``auto``; ``strips``: always exact, ignoring the budget; ``tiles``: always tiles.
        tile: the side of a tile in LR pixels, 2 or more; by default the largest that fits. An image no larger than one
            tile is exact.
        self_ensemble: return the mean over the eight orientations of the image, in eight times the time.
        precision: ``32`` is the model's own type, in IEEE arithmetic; ``tf32`` lets NVIDIA GPUs round the factors of
            float32 products to 10 bits of mantissa, which is faster; ``bf16`` and ``16`` compute under autocast, with
            results in 32 bits.

    Raises:
        ConfigError: a setting is out of its range.
    """

    memory: str = "auto"
    mode: str = "auto"
    tile: int | None = None
    self_ensemble: bool = False
    precision: str | int = "32"  # a number where Hydra read 32 or 16

    def __post_init__(self) -> None:
        if self.memory != "auto":
            parse(self.memory)
        one_of("mode", self.mode, INFERENCE_MODES)
        if self.tile is not None:
            whole_number("tile", self.tile, 2)
        flag("self_ensemble", self.self_ensemble)
        one_of("precision", str(self.precision), tuple(PRECISIONS))

    def __call__(self, model: SRNetwork, lr: Tensor, progress: Progress | None = None) -> Tensor:
        """Return the fused images, N×3×sH×sW, of N×3×H×W; on the CPU, not clamped."""
        return self.outputs(model, lr, keep_leaves=False, progress=progress).sr.cpu()

    def outputs(
        self, model: SRNetwork, lr: Tensor, *, keep_leaves: bool = True, progress: Progress | None = None
    ) -> Outputs:
        """Return the fused images, and the predictions and weights of the leaves.

        Args:
            model: in eval mode, on any device.
            lr: N×3×H×W, RGB in [0, 1], on any device.
            keep_leaves: return predictions and weights too, with four leaves five times as large as the images.
            progress: called with the fraction of the work that is done, up to 1.

        Returns:
            Tensors in single or double precision, not clamped; on the model's device if they fit into the memory budget
            there, otherwise on the CPU.

        Raises:
            ConfigError: the memory is not sufficient even for the smallest tiles.
        """
        parameter = next(model.parameters())
        lr = lr.detach().to(parameter.device, parameter.dtype)
        runs = len(lr) * (ORIENTATIONS if self.self_ensemble else 1)
        plan, done = self.plan(model, lr, keep_leaves=keep_leaves), count()

        def add(totals: Sequence[Tensor], image: Tensor) -> None:
            _add_image(totals, model, image, plan, part_of(progress, next(done), runs))

        device = parameter.device if plan.on_device else "cpu"
        totals = zero_outputs(model, lr, keep_leaves=keep_leaves, device=device)
        add_result = partial(add_orientations, add) if self.self_ensemble else add
        with computing_in(str(self.precision), parameter.device):
            for number, image in enumerate(lr.split(1)):
                _warn_of_tiles(model, image, plan)
                add_result([total[number : number + 1] for total in totals], image)
        return Outputs(*totals)

    def plan(self, model: SRNetwork, lr: Tensor, *, keep_leaves: bool = False) -> Plan:
        """Return the plan for each of N×3×H×W images, within the memory that is free now."""
        parameter = next(model.parameters())
        dtype = PRECISIONS[str(self.precision)] or parameter.dtype
        footprint = Footprint(model, dtype.itemsize, keep_leaves, copies=len(lr) + 2 * self.self_ensemble)
        height, width = lr.shape[-2:]
        bytes_to_use = budget(self.memory, parameter.device)
        plan = make_plan(footprint, height, width, bytes_to_use, mode=self.mode, tile=self.tile)
        _log.debug("%d×%d within %.2f GB: %s", width, height, bytes_to_use / 1e9, plan)
        return plan


def add_orientations(add: Callable[[Sequence[Tensor], Tensor], None], totals: Sequence[Tensor], lr: Tensor) -> None:
    """Add the mean over the eight orientations to zeros (EDSR's "+", Lim et al., CVPR Workshops 2017).

    ``add`` adds the outputs of one. Predictions and weights are averaged too. The weights still sum to 1, but the mean
    of the fused images is not exactly the fusion of the means.
    """
    for index in range(ORIENTATIONS):
        parts = [orient(torch.zeros_like(total), index) for total in totals]
        add(parts, orient(lr, index))
        for total, part in zip(totals, parts, strict=True):
            total.add_(restore(part, index), alpha=1 / ORIENTATIONS)


def orient(image: Tensor, index: int) -> Tensor:
    """Rotate an image, …×H×W, by ``index % 4`` · 90°, and mirror it if ``index`` is 4 or more."""
    image = image.rot90(index % 4, dims=(-2, -1))
    return image.flip(-1) if index >= 4 else image


def restore(image: Tensor, index: int) -> Tensor:
    """Undo :func:`orient`."""
    image = image.flip(-1) if index >= 4 else image
    return image.rot90(-(index % 4), dims=(-2, -1))


def _add_image(totals: Sequence[Tensor], model: SRNetwork, lr: Tensor, plan: Plan, progress: Progress) -> None:
    """Add the outputs of one image to zeros, in strips or in tiles."""
    if plan.tile and _exceeds(lr, plan.tile):
        add_tiles(totals, model, lr, plan.tile, plan.length, progress=progress)
    else:
        add_strips(totals, model, lr, plan.length, offload=plan.offload, progress=progress)


def _exceeds(lr: Tensor, side: int) -> bool:
    return side < max(lr.shape[-2:])


def _warn_of_tiles(model: SRNetwork, lr: Tensor, plan: Plan) -> None:
    """Warn that the result is approximate, with a measured difference, if the image is computed in tiles."""
    if not (plan.tile and _exceeds(lr, plan.tile)):
        return
    difference, square = probe(model, lr, plan.tile, plan.length)
    _log.warning(
        "approximate: an image of %d×%d is computed in tiles of %d pixels. On a square of %d pixels, with tiles of "
        "half that, the largest difference to the exact result was %.1e (of a range of 1). More memory makes it exact.",
        *(lr.shape[-1], lr.shape[-2], plan.tile, square, difference),
    )


AnyImage = TypeVar("AnyImage", Image.Image, np.ndarray, Tensor)


def upscale(
    model: SRNetwork,
    image: AnyImage,
    *,
    memory: str = Inference.memory,
    mode: str = Inference.mode,
    tile: int | None = Inference.tile,
    self_ensemble: bool = Inference.self_ensemble,
    precision: str | int = Inference.precision,
    progress: Progress | None = None,
) -> AnyImage:
    """Super-resolve an image of any size; the result has the type of the input.

    Args:
        model: from :func:`d2csr.load_model`, on any device.
        image: a PIL image of 8 bits (converted to RGB; of several frames the current one), an H×W×3 array (uint8, or
            floats in [0, 1]), or a tensor, 3×H×W or N×3×H×W, floats in [0, 1].
        memory: budget in addition to what the process already uses: ``auto``, or a size such as ``4GB``.
        mode: ``auto``; ``strips``: always exact, ignoring the budget; ``tiles``: always approximate.
        tile: the side of a tile in LR pixels; by default the largest that fits.
        self_ensemble: return the mean over eight orientations, in eight times the time.
        precision: ``32``; ``tf32``, faster on NVIDIA GPUs; ``bf16`` or ``16`` for autocast.
        progress: called with the fraction of the work that is done, up to 1.

    Returns:
        The same type: a PIL image in RGB; an sH×sW×3 array of the same dtype; a tensor with the device, dtype and
        number of dimensions of the input. Clamped to the type's range.

    Raises:
        TypeError: the image has another type.
        ValueError: it is not an RGB image, or the range of its values is unknown.
        ConfigError: an option is out of its range, or the memory is not sufficient even for the smallest tiles.
    """
    inference = Inference(memory, mode, tile, self_ensemble, precision)
    if isinstance(image, Image.Image):
        if image.mode[0] in "FI":  # Pillow would clip its values to 255
            raise ValueError(f"a PIL image of mode {image.mode} has an unknown range; pass floats in [0, 1].")
        return Image.fromarray(_upscale_array(model, np.asarray(image.convert("RGB")), inference, progress))
    if isinstance(image, np.ndarray):
        return _upscale_array(model, image, inference, progress)
    if isinstance(image, Tensor):
        return _upscale_tensor(model, image, inference, progress)
    raise TypeError(f"expected a PIL image, a numpy array or a tensor, got {type(image).__name__}.")


def _upscale_array(model: SRNetwork, image: np.ndarray, inference: Inference, progress: Progress | None) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or not (image.dtype == np.uint8 or image.dtype.kind == "f"):
        raise ValueError(f"expected H×W×3, uint8 or floats in [0, 1], got {image.dtype} of shape {image.shape}.")
    levels = 255 if image.dtype == np.uint8 else 1
    lr = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)) / levels
    sr = _upscale_tensor(model, lr, inference, progress).mul_(levels).permute(1, 2, 0).contiguous()
    return (sr.round_() if levels > 1 else sr).numpy().astype(image.dtype)


def _upscale_tensor(model: SRNetwork, image: Tensor, inference: Inference, progress: Progress | None) -> Tensor:
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or not image.is_floating_point() or 0 in image.shape:
        shape = tuple(image.shape)
        raise ValueError(f"expected 3×H×W or N×3×H×W, floats in [0, 1], got {image.dtype} of shape {shape}.")
    batch = image if image.ndim == 4 else image.unsqueeze(0)
    sr = inference.outputs(model, batch, keep_leaves=False, progress=progress).sr.clamp_(0, 1)
    return (sr if image.ndim == 4 else sr[0]).to(image.device, image.dtype)
