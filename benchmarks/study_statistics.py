"""Paired differences of the runs of the study, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95

Row = Mapping[str, str]  # a line of results/*.csv


@dataclass(frozen=True)
class Interval:
    """A mean difference in dB and the bootstrap interval around it; ``seeds`` is the number of pairs of runs."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def photographs(row: Row, method: str) -> dict[str, float]:
    """Return the PSNR of a method on each test photograph, in dB, the mean over its windows.

    The columns are called ``METHOD/PHOTOGRAPH_WINDOW``. Windows of one photograph are alike, so that they count as one.
    """
    windows: dict[str, list[float]] = {}
    for column, value in row.items():
        start, _, image = column.rpartition("/")
        if start == method and value:
            windows.setdefault(image.rpartition("_")[0] or image, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in windows.items()}


def paired_difference(
    rows: Sequence[Row], reference: Sequence[Row], method: str = "fusion", reference_method: str = "fusion"
) -> Interval | None:
    """Return the mean of ``rows`` − ``reference``, paired by seed and photograph; None if no seed is in both."""
    others = {row["seed"]: row for row in reference}
    pairs = [(row, others[row["seed"]]) for row in rows if row["seed"] in others]
    if not pairs:
        return None
    differences = []
    for row, other in pairs:
        ours, theirs = photographs(row, method), photographs(other, reference_method)
        if ours.keys() != theirs.keys():
            raise ValueError(f"{row['sweep']}/{row['arm']}: was tested on other images than {other['arm']}.")
        differences.append([ours[name] - theirs[name] for name in sorted(ours)])
    return bootstrap_interval(np.array(differences))


def bootstrap_interval(differences: np.ndarray, resamples: int = RESAMPLES, level: float = LEVEL) -> Interval:
    """Return the mean of differences, seeds × photographs, and its percentile bootstrap interval.

    Seeds and photographs are drawn independently of each other, with replacement, since all seeds are tested on the
    same photographs (the pigeonhole bootstrap, Owen 2007, https://arxiv.org/abs/0712.1111). Drawing single differences
    instead would treat them as independent, and give intervals that are too narrow.
    """
    seeds, images = differences.shape
    random = np.random.default_rng(0)
    of_seeds = random.integers(0, seeds, (resamples, seeds, 1))
    of_images = random.integers(0, images, (resamples, 1, images))
    means = differences[of_seeds, of_images].mean(axis=(1, 2))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(differences.mean()), float(low), float(high), seeds)
