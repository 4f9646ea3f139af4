"""LPIPS, the distance of two images in the features of AlexNet (Zhang et al., CVPR 2018)."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from d2csr.errors import ConfigError, DataError

_LEAST_SIDE = 31  # the last layers of AlexNet need this many pixels


def load_lpips() -> nn.Module:
    """Return torchmetrics' LPIPS network; call it with two batches N×3×H×W and ``normalize=True`` for RGB in [0, 1].

    torchmetrics contains the weights of LPIPS; torchvision downloads those of AlexNet (244 MB).

    Raises:
        ConfigError: the weights cannot be downloaded or read; the message says where to put them.
    """
    # These imports are slow.
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    from torchvision.models import AlexNet_Weights

    url = AlexNet_Weights.DEFAULT.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    try:
        return LearnedPerceptualImagePatchSimilarity(net_type="alex").net
    # Without a network: URLError, an OSError; a broken download or file: any of the others.
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        problem = f"{path} cannot be read" if path.is_file() else "the weights of AlexNet cannot be downloaded"
        raise ConfigError(
            f"lpips: {problem} ({str(error).splitlines()[0]}). Put the file {url} at {path}, or do without LPIPS."
        ) from None


class LPIPS(nn.Module):
    """LPIPS with AlexNet, a metric of one image: 0 for identical images, lower is better.

    Raises:
        ConfigError: the weights cannot be downloaded or read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = load_lpips()

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the LPIPS of one image, a scalar; ``sr`` and ``hr`` are 1×3×H×W, RGB, and ``sr`` is clamped.

        Raises:
            DataError: the image is too small.
        """
        if min(sr.shape[-2:]) < _LEAST_SIDE:
            raise DataError(
                f"lpips: needs images of at least {_LEAST_SIDE} pixels a side, got {sr.shape[-1]}×{sr.shape[-2]}."
            )
        return self.network(sr.clamp(0, 1), hr, normalize=True).mean()
