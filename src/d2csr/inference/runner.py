"""Running a model on whole images, however large."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from d2csr.errors import ConfigError
from d2csr.inference.outputs import ORIENTATIONS, Outputs, TileOutput, assemble, self_ensemble
from d2csr.inference.plan import MODES, Footprint, Plan, budget, make_plan, parse
from d2csr.inference.strips import strips
from d2csr.inference.tiles import probe, spans, tiles
from d2csr.inference.trace import trunk_radius
from d2csr.models import D2CSR

PRECISIONS: dict[str, torch.dtype | None] = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}

Progress = Callable[[float], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inference:
    """How to run a model; the same for every command and for :func:`d2csr.upscale`.

    Images are worked one by one, and exactly: the result is that of ``model(lr)``, but for float rounding. Only an
    image whose trunk does not fit is cut into tiles, which is approximate; a warning then says so, with the largest
    difference measured on a probe.

    Args:
        memory: what inference may take beside what the process holds already (some 0.6 GB once torch is loaded), of
            the memory where the model is: ``auto`` for four fifths of what is free, or a figure such as ``4GB``. It
            rests on an estimate, which a small image may exceed by some 50 MB.
        mode: ``auto``; ``strips``: exact, whatever the budget says; ``tiles``: tiles, even where the trunk would fit.
        tile: the side of a tile in LR pixels, at which an image no larger is worked whole; by default the largest that
            fits.
        self_ensemble: the mean over the eight orientations of the image, in eight times the time.
        precision: ``32`` is the model's own; ``bf16`` and ``16`` compute under autocast, with results in 32.

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
        if self.mode not in MODES:
            raise ConfigError(f"mode: must be one of {', '.join(MODES)}, got {self.mode!r}.")
        if self.tile is not None and (not isinstance(self.tile, int) or self.tile < 2):
            raise ConfigError(f"tile: must be a whole number of LR pixels from 2 up, got {self.tile!r}.")
        if str(self.precision) not in PRECISIONS:
            raise ConfigError(f"precision: must be one of {', '.join(PRECISIONS)}, got {self.precision!r}.")

    def __call__(self, model: D2CSR, lr: Tensor, progress: Progress | None = None) -> Tensor:
        """Return the fused images alone; see :meth:`outputs`."""
        return self.outputs(model, lr, parts=False, progress=progress).sr

    def outputs(self, model: D2CSR, lr: Tensor, *, parts: bool = True, progress: Progress | None = None) -> Outputs:
        """Return the fused images, and the predictions and weights they were made of.

        Args:
            model: in eval mode, on any device.
            lr: N×3×H×W, RGB in [0, 1], on any device.
            parts: keep predictions and weights: with four leaves they take five times what the images take.
            progress: called with the fraction of the work that is done, up to 1.

        Returns:
            Tensors on the CPU, in single precision at least, not clamped.

        Raises:
            ConfigError: the memory does not suffice even for the smallest tiles.
        """
        parameter = next(model.parameters())
        lr = lr.detach().to(parameter.device, parameter.dtype)
        runs = lr.shape[0] * (ORIENTATIONS if self.self_ensemble else 1)
        done = 0

        def infer(image: Tensor) -> Outputs:
            nonlocal done
            report = None if progress is None else _share(progress, done / runs, 1 / runs)
            pieces = self.pieces(model, image, parts=parts, progress=report)
            height, width = (extent * model.scale for extent in image.shape[-2:])
            outputs = assemble(pieces, height, width, parts=parts)
            done += 1
            return outputs

        images = lr.split(1)
        results = [self_ensemble(infer, image) if self.self_ensemble else infer(image) for image in images]
        if len(results) == 1:
            return results[0]
        return Outputs(*(None if column[0] is None else torch.cat(column) for column in zip(*results, strict=True)))  # type: ignore[arg-type]

    def pieces(
        self, model: D2CSR, lr: Tensor, *, parts: bool = False, progress: Progress | None = None
    ) -> Iterator[TileOutput]:
        """Yield one image's result piece by piece, predictions and weights included, for work that never needs all.

        The pieces of strips are disjoint; those of tiles overlap, and their sum is the result. No self-ensemble.

        Args:
            model: in eval mode, on any device.
            lr: 1×3×H×W, RGB in [0, 1], on the model's device, of the model's dtype.
            parts: whoever takes the pieces keeps predictions and weights; for the memory estimate.
            progress: called with the fraction of the work that is done, up to 1.
        """
        dtype = PRECISIONS[str(self.precision)]
        plan = self.plan(model, lr, parts=parts)
        tick = _ticker(progress, _steps(model, lr, plan))
        if plan.tile is None or plan.tile >= max(lr.shape[-2:]):
            yield from strips(model, lr, plan.length, offload=plan.offload, dtype=dtype, tick=tick)
            return
        self._warn(model, lr, plan)
        yield from tiles(model, lr, plan.tile, plan.length, dtype=dtype, tick=tick)

    def plan(self, model: D2CSR, lr: Tensor, *, parts: bool = False) -> Plan:
        """Return how an image, 1×3×H×W, would be worked."""
        parameter = next(model.parameters())
        dtype = PRECISIONS[str(self.precision)] or parameter.dtype
        footprint = Footprint(model, dtype.itemsize, parts, copies=3 if self.self_ensemble else 1)
        height, width = lr.shape[-2:]
        bytes_to_use = budget(self.memory, parameter.device)
        plan = make_plan(footprint, height, width, bytes_to_use, mode=self.mode, tile=self.tile)
        _log.debug("%d×%d within %.2f GB: %s", width, height, bytes_to_use / 1e9, plan)
        return plan

    def _warn(self, model: D2CSR, lr: Tensor, plan: Plan) -> None:
        assert plan.tile is not None
        dtype = PRECISIONS[str(self.precision)]
        difference, square = probe(model, lr, plan.tile, plan.length, dtype=dtype)
        _log.warning(
            "approximate: an image of %d×%d is worked in tiles of %d pixels; on a probe of %d pixels, in tiles of half "
            "that, the largest difference to the exact result was %.1e (of a range of 1). More memory makes it exact.",
            *(lr.shape[-1], lr.shape[-2], plan.tile, square, difference),
        )


def _steps(model: D2CSR, lr: Tensor, plan: Plan) -> int:
    """Return how often a run of one image ticks: once a leaf and once a strip, in every tile."""
    side = plan.tile or max(lr.shape[-2:])
    heights, widths = ([b - a for a, b in spans(extent, side, trunk_radius(model))] for extent in lr.shape[-2:])
    return sum(model.tree.num_leaves - (-max(h, w) // plan.length) for h in heights for w in widths)


def _ticker(progress: Progress | None, steps: int) -> Callable[[], None]:
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if progress is not None:
            progress(ticks / steps)

    return tick


def _share(progress: Progress, start: float, share: float) -> Progress:
    return lambda fraction: progress(start + share * fraction)


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
