"""The convergence network: a weighted sum of the predictions, with a weight for each pixel.

D2C-SR (Li et al., ECCV 2022, https://arxiv.org/abs/2103.14373), the convergence stage.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class ConvergenceNetwork(nn.Module):
    """Three bias-free 3×3 convolutions and a softmax over K predictions; ``features`` is the width of hidden layers."""

    def __init__(self, num_predictions: int, features: int) -> None:
        super().__init__()
        widths = [3 * num_predictions, features, features, num_predictions]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, kernel_size=3, padding=1, bias=False) for a, b in pairwise(widths))

    def forward(self, predictions: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse predictions, N×K×3×H×W, RGB in [0, 1].

        Returns:
            The fused image, N×3×H×W, and its weights, N×K×H×W: positive, with the sum 1 at each pixel.
        """
        x = predictions.flatten(1, 2)
        for layer in self.layers:  # the last one is followed by a ReLU too, as in the official network
            x = torch.relu_(layer(x))
        # Under autocast x has 16 bits: too coarse for weights whose sum must be 1.
        weights = x.softmax(dim=1, dtype=next(self.parameters()).dtype)
        return (weights.unsqueeze(2) * predictions).sum(dim=1), weights
