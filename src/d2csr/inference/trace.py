"""How far a pixel of the result depends on its neighbourhood, read off the layers of a model."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from torch import nn

from d2csr.models import D2CSR


def strip_halo(model: D2CSR) -> int:
    """Return how many LR rows beyond its own an output row takes from the features of the leaves.

    That is the halo of a strip. Read backwards: every 3×3 convolution of the fusion and the tail's last one asks for
    one more row at HR resolution; through a pixel shuffle, n rows become n / factor, rounded up; the convolution before
    it asks for one more at that resolution, and so on down to LR. It comes to 3 for every scale.

    The halo also keeps zero padding out. At the true border of the image a strip ends where the image does, and each
    layer pads as it does on the whole image. At an inner end a layer pads with zeros where there are real values, but
    what that spoils spreads by the same reach, and is cut off.
    """
    rows = _convolutions(model.convergence)
    tail = next(iter(model.divergence.tails.values()))
    for layer in reversed(list(tail.modules())):
        if isinstance(layer, nn.PixelShuffle):
            rows = ceil(rows / layer.upscale_factor)
        elif isinstance(layer, nn.Conv2d):
            rows += _margin(layer)
    return rows


def trunk_reach(model: D2CSR) -> int:
    """Return how many LR rows beyond its own a row of a leaf's features takes from the image, by convolutions alone.

    (Channel attention takes averages of the whole image besides.)
    """
    network = model.divergence
    leaf = network.tree.leaves[0]
    path = [network.bodies[leaf[:depth]] for depth in range(1, network.tree.depth + 1)]
    return sum(_convolutions(part) for part in (network.head, *path, network.skips[leaf]))


def _convolutions(part: nn.Module) -> int:
    return sum(_margins(part.modules()))


def _margins(layers: Iterable[nn.Module]) -> list[int]:
    return [_margin(layer) for layer in layers if isinstance(layer, nn.Conv2d)]


def _margin(layer: nn.Conv2d) -> int:
    return layer.kernel_size[0] // 2  # 1 of a 3×3 convolution, 0 of a 1×1
