"""Evaluation reports: ``metrics.json``, ``metrics.csv`` and the printed table."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from d2csr.data.lists import ImagePair
from d2csr.errors import printable
from d2csr.files import atomic_write

BICUBIC, MEAN, FUSION = "bicubic", "mean", "fusion"

_WORST = 3  # images listed below the table


Scores = dict[str, float]  # by metric, in the order of the table: psnr in dB, ssim, then others such as lpips
MethodScores = dict[str, Scores]  # of one image, or their means, by method

_COLUMNS = {"psnr": ("PSNR (dB)", 10, 2)}  # header, width and decimals; of other metrics the name, 9 and 4


@dataclass(frozen=True)
class ImageResult:
    """The outputs and scores of one test image; images are RGB in [0, 1]."""

    index: int  # of its pair
    lr: Tensor  # 1×3×H×W
    hr: Tensor  # 1×3×sH×sW
    images: dict[str, Tensor]  # 1×3×sH×sW by method: bicubic, each leaf, mean (of the leaves), fusion
    weights: Tensor | None  # 1×K×sH×sW, of the fusion; None if the leaves were not compared
    scores: MethodScores  # by the main protocol


@dataclass(frozen=True)
class Report:
    """The scores of an evaluation.

    Attributes:
        scale: s.
        pairs: the test pairs, at least one.
        images: by protocol, the scores of each pair by method, ``bicubic`` first and ``fusion`` last. The first
            protocol is the main one. It also has ``leaf …`` and ``mean``, except for images that are too large.
    """

    scale: int
    pairs: Sequence[ImagePair]
    images: dict[str, list[MethodScores]]

    @property
    def protocol(self) -> str:
        """The main protocol."""
        return next(iter(self.images))

    def means(self, protocol: str) -> MethodScores:
        """Return the mean over the images of each method that all images have."""
        images = self.images[protocol]
        methods = [name for name in images[0] if all(name in image for image in images)]
        return {name: mean_scores([image[name] for image in images]) for name in methods}

    def write(self, folder: str | Path) -> Path:
        """Write ``metrics.json`` and ``metrics.csv``, and return the path of the first."""
        path = Path(folder) / "metrics.json"
        with atomic_write(path) as partial:
            content = json.dumps(self._as_json(), indent=2, allow_nan=False)
            partial.write_text(content + "\n", encoding="utf-8")
        rows = [self._csv_row(number) for number in range(len(self.pairs))]
        with (
            atomic_write(path.with_suffix(".csv")) as partial,
            partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return path

    def table(self) -> str:
        """Return the text to print: the mean of each method, the fusion by each protocol, the worst images."""
        count = len(self.pairs)
        title = f"×{self.scale}, {count} image{'s' * (count > 1)}, protocol {self.protocol}"
        sections = [[title, *self._methods_table()]]
        if len(self.images) > 1:
            sections.append(self._protocols_table())
        if count > 1:
            sections.append(self._worst_table())
        return "\n\n".join("\n".join(lines) for lines in sections)

    def _methods_table(self) -> list[str]:
        means = self.means(self.protocol)
        metrics = list(means[FUSION])
        rows = [_row(name, scores, means[BICUBIC], metrics) for name, scores in means.items()]
        methods = [len(image) for image in self.images[self.protocol]]
        without_leaves = sum(number < max(methods) for number in methods)
        if without_leaves:
            rows.append(f"(Leaves left out: {without_leaves} of the images are too large; compare=true includes them.)")
        return [_header("", metrics), *rows]

    def _protocols_table(self) -> list[str]:
        """Return PSNR and SSIM of the fusion by each protocol; other metrics have no protocol."""
        means = {protocol: self.means(protocol) for protocol in self.images}
        metrics = ("psnr", "ssim")
        rows = [_row(name, scores[FUSION], scores[BICUBIC], metrics) for name, scores in means.items()]
        return [_header("fusion by", metrics), *rows, "(Scores of different protocols are not comparable.)"]

    def _worst_table(self) -> list[str]:
        def quality(image: tuple[ImagePair, MethodScores]) -> float:
            psnr = image[1][FUSION]["psnr"]
            return -math.inf if math.isnan(psnr) else psnr

        worst = sorted(zip(self.pairs, self.images[self.protocol], strict=True), key=quality)[:_WORST]
        metrics = list(worst[0][1][FUSION])
        names = [printable(pair.lr.name).replace("\n", "\\n") for pair, _ in worst]
        rows = [_row("", scores[FUSION], scores[BICUBIC], metrics) for _, scores in worst]
        return [_header("worst", metrics), *map("  ".join, zip(rows, names, strict=True))]

    def _as_json(self) -> dict[str, Any]:
        main, *others = self.images
        content: dict[str, Any] = {"protocol": main, "scale": self.scale, **self._protocol_as_json(main)}
        if others:
            content["protocols"] = {protocol: self._protocol_as_json(protocol) for protocol in others}
        return content

    def _protocol_as_json(self, protocol: str) -> dict[str, Any]:
        means = self.means(protocol)
        images = zip(self.pairs, self.images[protocol], strict=True)
        return {
            "mean": as_json(means[FUSION]),
            "images": [{"lr": str(pair.lr), "hr": str(pair.hr), **as_json(scores[FUSION])} for pair, scores in images],
            "methods": {name: as_json(scores) for name, scores in means.items()},
        }

    def _csv_row(self, number: int) -> dict[str, Any]:
        """Return the row of an image; columns of protocols other than the main one end in the protocol's name."""
        row: dict[str, Any] = {"lr": self.pairs[number].lr, "hr": self.pairs[number].hr}
        for protocol, images in self.images.items():
            suffix = "" if protocol == self.protocol else f"_{protocol}"
            row |= {name + suffix: value for name, value in images[number][FUSION].items()}
        return row


def mean_scores(images: Sequence[Scores]) -> Scores:
    """Return the mean of each metric that all images have."""
    metrics = [name for name in images[0] if all(name in scores for scores in images)]
    return {name: sum(scores[name] for scores in images) / len(images) for name in metrics}


def as_json(scores: Scores) -> dict[str, float | None]:
    """Return the scores; NaN and infinity (the PSNR of identical images) are null: JSON has neither."""
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def _column(metric: str) -> tuple[str, int, int]:
    return _COLUMNS.get(metric, (metric.upper(), max(9, len(metric) + 2), 4))


def _header(label: str, metrics: Iterable[str]) -> str:
    cells = [f"{header:>{width}}" for header, width, _ in map(_column, metrics)]
    return f"{label:12}" + "".join([cells[0], f"{'over bicubic':>14}", *cells[1:]])


def _row(label: str, scores: Scores, baseline: Scores, metrics: Iterable[str]) -> str:
    cells = []
    for metric in metrics:
        _, width, decimals = _column(metric)
        cells.append(f"{scores[metric]:{width}.{decimals}f}" if metric in scores else " " * width)
    return f"{label:12}" + "".join([cells[0], f"{scores['psnr'] - baseline['psnr']:+14.2f}", *cells[1:]])
