"""LPIPS, how different two images look to a network that was trained on photographs."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from d2csr.errors import ConfigError, DataError

_LEAST_SIDE = 31  # below that, nothing is left for AlexNet's last layers


class LPIPS(nn.Module):
    """LPIPS with AlexNet (Zhang et al., CVPR 2018): 0 for the same image, and the lower the better.

    torchmetrics brings the weights of LPIPS itself, but torchvision downloads those of AlexNet (244 MB).

    Raises:
        ConfigError: the weights are not there and cannot be downloaded; the message says where to put them.
    """

    def __init__(self) -> None:
        super().__init__()
        # Only who asks for LPIPS waits for these imports.
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        from torchvision.models import AlexNet_Weights

        url = AlexNet_Weights.DEFAULT.url
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
        try:
            # Named as an attribute of this module, so that it moves to the device with it.
            self.metric = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
        # Without a network: URLError, an OSError; a broken download or file: any of the others.
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            problem = f"{path} cannot be read" if path.is_file() else "the weights of AlexNet cannot be downloaded"
            raise ConfigError(
                f"lpips: {problem} ({str(error).splitlines()[0]}). Put the file {url} at {path}, or leave lpips=true "
                "away: all other figures do without."
            ) from None

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the LPIPS of one image, a scalar.

        Args:
            sr: 1×3×H×W, RGB in [0, 1]; clamped if it goes beyond.
            hr: the same shape, in [0, 1].

        Raises:
            DataError: the image is too small.
        """
        if min(sr.shape[-2:]) < _LEAST_SIDE:
            raise DataError(
                f"lpips: needs images of at least {_LEAST_SIDE} pixels a side, got {sr.shape[-1]}×{sr.shape[-2]}."
            )
        value = self.metric(sr.clamp(0, 1), hr)
        self.metric.reset()  # it keeps every value for a mean of its own
        return value
