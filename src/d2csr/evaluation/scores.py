"""Scores by method and metric, and their means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from d2csr.metrics import psnr, ssim

BICUBIC, MEAN, FUSION = "bicubic", "mean", "fusion"

Scores = dict[str, float]  # by metric, in the order of the table: psnr in dB, ssim, then others such as lpips
MethodScores = dict[str, Scores]  # of one image, or their means, by method


class SeedGroup(NamedTuple):
    """Methods that are runs of the same settings with different seeds, and these seeds."""

    methods: tuple[str, ...]
    seeds: tuple[int, ...]


def image_scores(sr: Tensor, hr: Tensor, *, scale: int, protocol: str) -> Scores:
    """Return PSNR and SSIM of one image, 1×3×H×W, RGB in [0, 1], by a protocol."""
    return {
        "psnr": psnr(sr, hr, scale=scale, protocol=protocol).item(),
        "ssim": ssim(sr, hr, scale=scale, protocol=protocol).item(),
    }


def mean_scores(many: Sequence[Scores]) -> Scores:
    """Return the mean of each metric that all scores have."""
    return {name: sum(scores[name] for scores in many) / len(many) for name in _common_metrics(many)}


def std_scores(many: Sequence[Scores]) -> Scores:
    """Return the sample standard deviation (divided by n − 1) of each metric that all scores have; n is at least 2."""
    means = mean_scores(many)
    # Not statistics.stdev, which raises for infinite values: the PSNR of identical images.
    return {
        name: math.sqrt(sum((scores[name] - mean) ** 2 for scores in many) / (len(many) - 1))
        for name, mean in means.items()
    }


def _common_metrics(many: Sequence[Scores]) -> list[str]:
    return [name for name in many[0] if all(name in scores for scores in many)]
