"""The stages for each image before it is written: reading ahead in a thread, and super-resolution."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d2csr.checks import flag, one_of, whole_number
from d2csr.colormap import VIRIDIS
from d2csr.data.images import MAX_PIXELS
from d2csr.errors import ConfigError
from d2csr.inference.plan import Footprint, budget
from d2csr.inference.runner import Inference
from d2csr.inference.strips import Progress
from d2csr.models import SRNetwork
from d2csr.upscaling.image_reader import ImageArray, read_image
from d2csr.upscaling.image_writer import DEFAULT_COMPRESSION, DEFAULT_QUALITY, FORMATS

_DECODING_BYTES = 40  # a pixel, at most: RGB and alpha of 16 bits, decoded in two passes
_LUMA = (0.299, 0.587, 0.114)

SizeCheck = Callable[[int, int], None]


@dataclass(frozen=True)
class Options:
    """Settings for reading images and writing results; a ConfigError names a value out of its range."""

    save: tuple[str, ...] = ("sr",)  # of "sr", "leaves" and "weights"
    file_format: str = "png"  # png, jpg, webp, tif or same
    quality: int = DEFAULT_QUALITY  # of JPEG and WebP, 1 to 100
    png_compression: int = DEFAULT_COMPRESSION  # 0 (fast, large files) to 9
    overwrite: bool = False  # replace results that exist, instead of skipping them
    max_pixels: int = MAX_PIXELS  # larger images are refused
    suffix: str = ""  # of the names of results

    def __post_init__(self) -> None:
        whole_number("quality", self.quality, most=100)
        whole_number("png_compression", self.png_compression, least=0, most=9)
        flag("overwrite", self.overwrite)
        whole_number("max_pixels", self.max_pixels)
        one_of("format", self.file_format, FORMATS)
        if not self.suffix.isprintable() or "/" in self.suffix or "\\" in self.suffix:
            raise ConfigError(f"suffix: must be a part of a file name, such as _x4, got {self.suffix!r}.")


@dataclass(frozen=True)
class Job:
    """One image and the files to write for it."""

    number: int  # in the list, from 1
    path: Path
    targets: dict[str, Path]  # by output


def size_check(model: SRNetwork, inference: Inference, *, keep_leaves: bool = False) -> SizeCheck:
    """Return a check of an image's height and width against the memory that is free now.

    The check raises a ConfigError if the work on the image would exceed the memory. It runs before decoding: a file of
    1 MB can hold an image that takes several GB. ``keep_leaves`` counts predictions and weights of the leaves too.
    """
    device = next(model.parameters()).device
    limited = replace(inference, memory=f"{budget(inference.memory, device) // 1000}KB")
    # The budget is that of the model's device, and mode=strips ignores it.
    applies = device.type == "cpu" and inference.mode != "strips"
    host_limit = budget(inference.memory if applies else "auto", torch.device("cpu"))
    footprint = Footprint(model, keep_leaves=keep_leaves)

    def check(height: int, width: int) -> None:
        limited.plan(model, torch.empty(1, 3, height, width, device="meta"), keep_leaves=keep_leaves)
        needed = _DECODING_BYTES * height * width + footprint.outputs(height, width)
        if needed > host_limit:
            raise ConfigError(
                f"memory: an image of {width}×{height} and its result need {needed / 1e9:.2f} GB, but "
                f"{host_limit / 1e9:.2f} GB are available."
            )

    return check


def read_ahead(
    jobs: Sequence[Job], max_pixels: int, check_size: SizeCheck | None = None
) -> Iterator[tuple[Job, Future[ImageArray]]]:
    """Yield jobs and their images, which a thread reads; the next image is read meanwhile.

    A DataLoader worker would pass images through shared memory, which is small in containers.
    """
    with ThreadPoolExecutor(1, "read") as thread:
        ahead: deque[tuple[Job, Future[ImageArray]]] = deque()
        for job in jobs:
            ahead.append((job, thread.submit(read_image, job.path, max_pixels, check_size)))
            if len(ahead) == 2:
                yield ahead.popleft()
        yield from ahead


def upscale_image(
    model: SRNetwork,
    inference: Inference,
    image: ImageArray,
    *,
    keep_leaves: bool = False,
    progress: Progress | None = None,
) -> dict[str, ImageArray]:
    """Super-resolve an image; the outputs are s times as large, with the channels, bits and profile of the input.

    The network works on RGB. A grey image enters it as three equal channels, and its result is the luminance of the
    output. Alpha is super-resolved like a grey image, but areas of constant alpha keep their value exactly.

    Returns:
        ``sr``; with ``keep_leaves``, in six times the memory, also ``leaf11`` …, without alpha, and ``weight11`` …:
        8-bit values of 255 · weight, shown in viridis.

    Raises:
        ConfigError: the memory does not suffice even for the smallest tiles.
    """
    colour, icc = image.colour, image.icc
    outputs = inference.outputs(model, _to_tensor(colour), keep_leaves=keep_leaves, progress=progress)
    alpha = None if image.alpha is None else _upscale_alpha(model, inference, image.alpha)
    results = {"sr": ImageArray(_to_array(outputs.sr[0], colour), alpha, icc)}
    if outputs.predictions is not None and outputs.weights is not None:
        leaves = zip(model.tree.leaves, outputs.predictions[0], outputs.weights[0], strict=True)
        for leaf, prediction, weight in leaves:
            results[f"leaf{leaf}"] = ImageArray(_to_array(prediction, colour), icc=icc)
            shades = weight.clamp(0, 1).mul(255).round_().byte().unsqueeze(-1)
            results[f"weight{leaf}"] = ImageArray(shades.cpu().numpy(), palette=VIRIDIS)
    return results


def _upscale_alpha(model: SRNetwork, inference: Inference, alpha: np.ndarray) -> np.ndarray:
    enlarged = alpha.repeat(model.scale, axis=0).repeat(model.scale, axis=1)
    if alpha.min() == alpha.max():
        return enlarged
    lr = _to_tensor(alpha[..., None])
    outputs = inference.outputs(model, lr, keep_leaves=False)
    sr = _to_array(outputs.sr[0], alpha[..., None])[..., 0]
    highest, lowest = F.max_pool2d(lr[0], 3, stride=1, padding=1), -F.max_pool2d(-lr[0], 3, stride=1, padding=1)
    constant = (highest == lowest)[0].numpy().repeat(model.scale, axis=0).repeat(model.scale, axis=1)
    return np.where(constant, enlarged, sr)


def _to_tensor(colour: np.ndarray) -> Tensor:
    """Turn H×W×C into 1×3×H×W, in [0, 1]."""
    values = colour.astype(np.float32) / np.iinfo(colour.dtype).max
    return torch.from_numpy(values).permute(2, 0, 1)[None].expand(1, 3, -1, -1).contiguous()


def _to_array(image: Tensor, like: np.ndarray) -> np.ndarray:
    """Turn 3×H×W on any device into H×W×C with the channels and dtype of another image; overwrites the tensor.

    Clamped, rounded and interleaved on the device, which transfers a quarter or half of the bytes.
    """
    if like.shape[-1] == 1:
        image = torch.einsum("chw,c->hw", image, image.new_tensor(_LUMA)).unsqueeze(0)
    values = image.clamp_(0, 1).mul_(np.iinfo(like.dtype).max).round_().permute(1, 2, 0)
    return values.to(torch.uint8 if like.dtype == np.uint8 else torch.uint16).contiguous().cpu().numpy()
