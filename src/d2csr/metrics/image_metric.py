"""The interface of image quality metrics other than PSNR and SSIM, and the errors of their weights."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d2csr.errors import ConfigError, DataError


class ImageMetric(nn.Module):
    """A metric of one image, with or without its ground truth.

    Attributes:
        name: in tables and files.
        library: the package that computes it.
        lower_is_better: otherwise higher is better.
        least_side: in pixels; smaller images have no score.
    """

    name: str
    library = "torchmetrics"
    lower_is_better = False
    least_side = 1

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the score of one image, a scalar; ``sr`` and ``hr`` are 1×3×H×W, RGB, and ``sr`` is clamped to [0, 1].

        Raises:
            DataError: the image is too small.
        """
        height, width = sr.shape[-2:]
        if min(height, width) < self.least_side:
            raise DataError(
                f"{self.name}: needs images of at least {self.least_side} pixels a side, got {width}×{height}."
            )
        return self.score(sr.clamp(0, 1), hr).mean()

    def score(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the score of one image; ``sr`` and ``hr`` are 1×3×H×W, RGB in [0, 1]."""
        raise NotImplementedError

    def description(self) -> dict[str, Any]:
        """Return the library with its version, and whether lower is better, as plain values."""
        library = f"{self.library} {import_module(self.library).__version__}"
        return {"library": library, "lower_is_better": self.lower_is_better}


@contextmanager
def torchvision_weights(metric: str, network: str, url: str) -> Iterator[None]:
    """Turn the errors of loading a network's weights into a ConfigError that says where to put the file.

    Args:
        metric: the setting that asks for the weights.
        network: the name of the network.
        url: the address that torchvision downloads from.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    try:
        yield
    # Without a network: URLError, an OSError; a broken download or file: any of the others.
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        problem = f"{path} cannot be read" if path.is_file() else f"the weights of {network} cannot be downloaded"
        raise ConfigError(
            f"{metric}: {problem} ({str(error).splitlines()[0]}). Put the file {url} at {path}, or do without "
            f"{metric.upper()}."
        ) from None
