"""Work on one uploaded image: check, super-resolution, and the images that the page shows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from d2csr.app.job_queue import Job, Report, RequestError
from d2csr.checks import whole_number
from d2csr.data.images import read_size
from d2csr.errors import UserError, is_disk_full, is_out_of_memory, printable
from d2csr.evaluation.baselines import bicubic
from d2csr.inference.runner import Inference
from d2csr.models import SRNetwork
from d2csr.upscaling.image_reader import ImageArray, read_image
from d2csr.upscaling.image_writer import write_image
from d2csr.upscaling.pipeline import size_check, upscale_image

_NETWORK_SHARE = 0.9  # of the progress; the rest is for the files

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedModel:
    """A model in eval mode, and its name on the page."""

    name: str
    model: SRNetwork


@dataclass(frozen=True)
class Limits:
    """Limits of uploads; a ConfigError names a value out of its range. The defaults are in ``conf/app.yaml``."""

    max_pixels: int  # of an LR image
    max_megabytes: int  # of a file; 1 MB is 10⁶ bytes
    queue: int  # images that are computed, wait, or are uploaded at a time

    def __post_init__(self) -> None:
        whole_number("max_pixels", self.max_pixels)
        whole_number("max_megabytes", self.max_megabytes)
        whole_number("queue", self.queue)

    @property
    def max_bytes(self) -> int:
        """Bytes of a file."""
        return self.max_megabytes * 10**6


def check_upload(job: Job, max_pixels: int) -> None:
    """Check the header of an uploaded file, so that a wrong one does not wait in the queue.

    Raises:
        UserError: the file is no image, broken, or too large.
    """
    with named_errors(job):
        height, width = read_size(job.source)
    if height * width > max_pixels:
        raise RequestError(
            f"{job.name}: {width}×{height} = {height * width:,} pixels, above the limit of {max_pixels:,}. "
            "Cut out a part, or start d2csr-app with a larger max_pixels.",
            413,
        )


def process(job: Job, report: Report, models: Sequence[NamedModel], inference: Inference, max_pixels: int) -> None:
    """Super-resolve the image of a job, and write what the page shows into its folder, as 16-bit PNG.

    The files are ``lr.png``, ``bicubic.png``, ``sr.png``, and with ``job.keep_leaves`` ``leaf11.png`` … and
    ``weight11.png`` …, the latter in viridis. The image keeps its profile, transparency, and grey.

    Raises:
        UserError: the image is broken, or memory or disk do not suffice.
        Cancelled: raised by ``report``.
    """
    model = models[job.checkpoint].model
    keep_leaves = job.keep_leaves and model.tree.num_leaves > 1  # a single path is its own leaf
    with named_errors(job):
        check = size_check(model, inference, keep_leaves=keep_leaves)
        image = in_16_bits(read_image(job.source, max_pixels, check))
        height, width = image.colour.shape[:2]
        _log.info("%s: %d×%d, %s", job.name, width, height, models[job.checkpoint].name)
        plan = inference.plan(model, torch.empty(1, 3, height, width, device="meta"), keep_leaves=keep_leaves)
        if plan.tile is not None and plan.tile < max(height, width):
            job.notes.append(
                f"The memory does not suffice for the whole image, so it was computed in tiles of {plan.tile} pixels. "
                "The result is approximate."
            )
        job.size = (width * model.scale, height * model.scale)
        _write(job, "lr", image)
        _write(job, "bicubic", enlarged(image, model.scale))
        outputs = upscale_image(
            model,
            inference,
            image,
            keep_leaves=keep_leaves,
            progress=lambda fraction: report(_NETWORK_SHARE * fraction),
        )
        for count, (name, output) in enumerate(outputs.items(), start=1):
            _write(job, name, output)
            report(_NETWORK_SHARE + (1 - _NETWORK_SHARE) * count / len(outputs))


def in_16_bits(image: ImageArray) -> ImageArray:
    """Return an image with uint16 values; 8-bit values are multiplied by 257, so that white stays white."""
    if image.colour.dtype == np.uint16:
        return image
    alpha = None if image.alpha is None else image.alpha.astype(np.uint16) * 257
    return replace(image, colour=image.colour.astype(np.uint16) * 257, alpha=alpha)


def enlarged(image: ImageArray, scale: int) -> ImageArray:
    """Return an image of uint16, enlarged by bicubic interpolation, alpha too."""

    def enlarge(plane: np.ndarray) -> np.ndarray:
        values = torch.from_numpy(plane.astype(np.float32)).permute(2, 0, 1)[None]
        return bicubic(values, scale)[0].round_().clamp_(0, 65535).permute(1, 2, 0).numpy().astype(np.uint16)

    alpha = None if image.alpha is None else enlarge(image.alpha[..., None])[..., 0]
    return replace(image, colour=enlarge(image.colour), alpha=alpha)


def _write(job: Job, name: str, image: ImageArray) -> None:
    write_image(image, job.folder / f"{name}.png")
    job.files.append(name)


@contextmanager
def named_errors(job: Job) -> Iterator[None]:
    """Turn errors that the user or the administrator can fix into UserErrors that name the image, not its path."""
    try:
        yield
    except RequestError:
        raise
    except UserError as error:
        message = str(error).replace(str(job.source), job.name).replace(str(job.folder), job.name)
        raise RequestError(printable(message if job.name in message else f"{job.name}: {message}"), 422) from None
    except Exception as error:
        if is_out_of_memory(error):
            raise RequestError(f"{job.name}: not enough memory. Use a smaller image.", 507) from None
        if is_disk_full(error):
            raise RequestError(f"{job.name}: the disk of the server is full.", 507) from None
        raise
