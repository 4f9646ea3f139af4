"""Scores of images and methods, and evaluation reports with their files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from d2csr.data.lists import ImagePair
from d2csr.evaluation.baselines import ORACLES
from d2csr.files import atomic_write
from d2csr.inference import Outputs
from d2csr.metrics import PROTOCOLS, psnr, ssim
from d2csr.metrics.leaves import error_correlation, leaf_distances, weight_entropy
from d2csr.models.tree import Tree

BICUBIC, MEAN, FUSION = "bicubic", "mean", "fusion"

Scores = dict[str, float]  # by metric, in the order of the table: psnr in dB, ssim, then others such as lpips
MethodScores = dict[str, Scores]  # of one image, or their means, by method


class SeedGroup(NamedTuple):
    """Methods that are runs of the same settings with different seeds, and these seeds."""

    methods: tuple[str, ...]
    seeds: tuple[int, ...]


def image_scores(sr: Tensor, hr: Tensor, *, scale: int, protocol: str) -> Scores:
    """Return PSNR and SSIM of one image, 1×3×H×W, RGB in [0, 1], by a protocol."""
    metrics = {"psnr": psnr, "ssim": ssim}
    return {name: metric(sr, hr, scale=scale, protocol=protocol).item() for name, metric in metrics.items()}


def leaf_images(predictions: Tensor, tree: Tree) -> dict[str, Tensor]:
    """Return the leaves and their mean, N×3×sH×sW, by their names in a report; predictions are N×K×3×sH×sW."""
    leaves = zip(tree.leaves, predictions.unbind(dim=1), strict=True)
    return {**{f"leaf {leaf}": image for leaf, image in leaves}, MEAN: predictions.mean(dim=1)}


def leaf_statistics(outputs: Outputs, hr: Tensor, tree: Tree) -> dict[str, float]:
    """Return the statistics of an image whose leaves were kept, as floats.

    ``distance``, ``distance_same`` and ``distance_diff`` are those of :func:`d2csr.metrics.leaves.leaf_distances`, RGB
    in [0, 1]; ``error_correlation`` is between the errors of two leaves, ``weight_entropy`` is 1 for equal weights.
    Values that are not finite, and those without pairs of leaves, are omitted.
    """
    assert outputs.predictions is not None  # the leaves were kept
    found = {
        **leaf_distances(outputs.predictions, tree),
        "error_correlation": error_correlation(outputs.predictions, hr),
    }
    if outputs.weights is not None:
        found["weight_entropy"] = weight_entropy(outputs.weights)
    values = {name: value.item() for name, value in found.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def mean_scores(many: Sequence[Scores]) -> Scores:
    """Return the mean of each metric that all scores have."""
    common = [name for name in many[0] if all(name in scores for scores in many)]
    return {name: sum(scores[name] for scores in many) / len(many) for name in common}


def std_scores(many: Sequence[Scores]) -> Scores:
    """Return the sample standard deviation (divided by n − 1) of each metric that all scores have; n is at least 2."""
    # Not statistics.stdev, which raises for infinite values: the PSNR of identical images.
    values = {name: torch.tensor([scores[name] for scores in many], dtype=torch.float64) for name in mean_scores(many)}
    return {name: of_metric.std().item() for name, of_metric in values.items()}


@dataclass(frozen=True)
class ImageResult:
    """The outputs and scores of one test image; images are RGB in [0, 1]."""

    index: int  # of its pair
    lr: Tensor  # 1×3×H×W
    hr: Tensor  # 1×3×sH×sW
    images: dict[str, Tensor]  # 1×3×sH×sW by method, in the order of the report, without oracles
    weights: Tensor | None  # 1×K×sH×sW, of the fusion; None if the leaves were not compared
    scores: MethodScores  # by the main protocol


@dataclass(frozen=True)
class Report:
    """The scores of an evaluation."""

    scale: int  #: s
    pairs: Sequence[ImagePair]  #: the test pairs, at least one
    #: By protocol, the scores of each pair by method, ``bicubic`` first. The first, main protocol also has ``leaf …``,
    #: ``mean`` and oracles, except for images that are too large.
    images: dict[str, list[MethodScores]]
    method: str = FUSION  #: whose scores are ``mean`` and ``images`` in ``metrics.json``
    seeds: Sequence[SeedGroup] = ()  #: methods that differ by their seed alone
    about: Mapping[str, Any] = field(default_factory=dict)  #: further entries of ``metrics.json``
    eight_bit: bool = False  #: the images of all methods were rounded to 8 bits
    #: Descriptions of the metrics other than PSNR and SSIM, with ``lower_is_better``.
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: :func:`leaf_statistics` of each pair; empty dicts for large images, an empty sequence if no leaves were compared.
    leaves: Sequence[Mapping[str, float]] = ()

    @property
    def protocol(self) -> str:
        """The main protocol."""
        return next(iter(self.images))

    def scored_on(self, protocol: str) -> str:
        """Return which values of the images a protocol scored, in words."""
        return "8-bit" if self.eight_bit else PROTOCOLS[protocol].scored_on

    def column(self, metric: str, protocol: str) -> str:
        """Return the name of a column in a CSV file; those of further protocols end in the protocol's name."""
        return metric if protocol == self.protocol else f"{metric}_{protocol}"

    def means(self, protocol: str) -> MethodScores:
        """Return the mean over the images of each method that all images have."""
        images = self.images[protocol]
        methods = [name for name in images[0] if all(name in image for image in images)]
        return {name: mean_scores([image[name] for image in images]) for name in methods}

    def over_seeds(self, protocol: str) -> list[tuple[SeedGroup, Scores, Scores]]:
        """Return mean and sample standard deviation, over the runs of each group, of the means over the images."""
        means = self.means(protocol)
        runs = [(group, [means[method] for method in group.methods]) for group in self.seeds]
        return [(group, mean_scores(scores), std_scores(scores)) for group, scores in runs]

    def write(self, folder: str | Path) -> Path:
        """Write ``metrics.json`` and ``metrics.csv``, which hold each image, and return the path of the first."""
        path = Path(folder) / "metrics.json"
        with atomic_write(path) as partial:
            content = json.dumps(self._as_json(), indent=2, allow_nan=False)
            partial.write_text(content + "\n", encoding="utf-8")
        write_csv(path.with_suffix(".csv"), [self._csv_row(number) for number in range(len(self.pairs))])
        return path

    def _as_json(self) -> dict[str, Any]:
        main, *others = self.images
        content: dict[str, Any] = {"protocol": main, "scale": self.scale, "method": self.method}
        content |= self._protocol_as_json(main)
        if others:
            content["protocols"] = {protocol: self._protocol_as_json(protocol) for protocol in others}
        if self.metrics:
            content["metrics"] = self.metrics
        if any(self.leaves):
            for image, leaves in zip(content["images"], self.leaves, strict=True):
                image["leaves"] = leaves
            content["leaves"] = mean_scores([dict(leaves) for leaves in self.leaves])
        return content | dict(self.about)

    def _protocol_as_json(self, protocol: str) -> dict[str, Any]:
        means = self.means(protocol)
        images = zip(self.pairs, self.images[protocol], strict=True)
        content = {
            "scored_on": self.scored_on(protocol),
            "mean": _as_json(means[self.method]),
            "images": [
                {"lr": str(pair.lr), "hr": str(pair.hr), **_as_json(scores[self.method]), **_methods_as_json(scores)}
                for pair, scores in images
            ],
            **_methods_as_json(means),
        }
        if self.seeds:
            content["seeds"] = [
                {"methods": group.methods, "seeds": group.seeds, "mean": _as_json(mean), "std": _as_json(std)}
                for group, mean, std in self.over_seeds(protocol)
            ]
        return content

    def _csv_row(self, number: int) -> dict[str, Any]:
        """Return the row of an image: the scores of ``method``, then those of all methods, as ``METHOD/psnr``."""
        row: dict[str, Any] = {"lr": self.pairs[number].lr, "hr": self.pairs[number].hr}
        for protocol, images in self.images.items():
            row |= {self.column(metric, protocol): value for metric, value in images[number][self.method].items()}
        for protocol, images in self.images.items():
            for method, scores in images[number].items():
                row |= {f"{method}/{self.column(metric, protocol)}": value for metric, value in scores.items()}
        if self.leaves:
            row |= {f"leaves/{name}": value for name, value in self.leaves[number].items()}
        return row


def _as_json(scores: Scores) -> dict[str, float | None]:
    """Return the scores; NaN and infinity (the PSNR of identical images) are null: JSON has neither."""
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def _methods_as_json(scores: MethodScores) -> dict[str, Any]:
    """Return the scores of the methods, and apart from them those of the oracles."""
    methods = {name: _as_json(one) for name, one in scores.items() if name not in ORACLES}
    oracles = {name.removeprefix("oracle "): _as_json(one) for name, one in scores.items() if name in ORACLES}
    return {"methods": methods, **({"oracle": oracles} if oracles else {})}


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the columns of all of them; large images lack those of the leaves."""
    columns = dict.fromkeys(name for row in rows for name in row)
    with (
        atomic_write(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)
