"""The figures of an evaluation: ``metrics.json``, ``metrics.csv``, and the table on the screen."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from d2csr.data.lists import ImagePair

BICUBIC, FUSION = "bicubic", "fusion"

_WORST = 3


class Scores(NamedTuple):
    """PSNR in dB, SSIM, and LPIPS where it was asked for."""

    psnr: float
    ssim: float
    lpips: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """Return them by name; an infinite PSNR (of identical images) is null, since JSON has no infinity."""
        named = {"psnr": self.psnr if math.isfinite(self.psnr) else None, "ssim": self.ssim}
        return named if self.lpips is None else {**named, "lpips": self.lpips}


# The figures of one image, or their means, by method.
Methods = dict[str, Scores]


@dataclass(frozen=True)
class Results:
    """What came of one test image.

    Attributes:
        index: the number of its pair.
        lr: 1×3×H×W, RGB in [0, 1].
        hr: 1×3×sH×sW.
        images: 1×3×sH×sW by method: ``bicubic``, one for each leaf, ``mean`` (of the leaves), ``fusion``.
        weights: 1×K×sH×sW, the fusion's; None where the leaves were not compared.
        figures: PSNR and SSIM by method, by the main protocol.
    """

    index: int
    lr: Tensor
    hr: Tensor
    images: dict[str, Tensor]
    weights: Tensor | None
    figures: Methods


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        scale: s.
        pairs: the test pairs, at least one.
        images: by protocol, for each pair, the figures by method, ``bicubic`` first and ``fusion`` last. Under the
            first protocol, the main one, ``mean`` (of the leaves) and ``leaf …`` come between, unless an image was too
            large to compare them.
    """

    scale: int
    pairs: Sequence[ImagePair]
    images: dict[str, list[Methods]]

    @property
    def protocol(self) -> str:
        """The main protocol."""
        return next(iter(self.images))

    def means(self, protocol: str) -> Methods:
        """Return the mean over images of each method that all images have."""
        first, *others = images = self.images[protocol]
        return {name: _mean([image[name] for image in images]) for name in first if all(name in i for i in others)}

    def write(self, folder: str | Path) -> Path:
        """Write ``metrics.json`` and ``metrics.csv`` and return the path of the first."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.json"
        path.write_text(json.dumps(self._as_dict(), indent=2) + "\n", encoding="utf-8")
        with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [self._csv_row(number) for number in range(len(self.pairs))]
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return path

    def table(self) -> str:
        """Return what to print: the means of each method, the fusion by each protocol, the worst images."""
        count = len(self.pairs)
        title = f"×{self.scale}, {count} image{'s' * (count > 1)}, protocol {self.protocol}"
        parts = [[title, *self._methods_table()]]
        if len(self.images) > 1:
            parts.append(self._protocols_table())
        if count > 1:
            parts.append(self._worst_table())
        return "\n\n".join("\n".join(lines) for lines in parts)

    def _methods_table(self) -> list[str]:
        means = self.means(self.protocol)
        rows = [_row(name, figures, means[BICUBIC]) for name, figures in means.items()]
        left_out = sum(len(image) < max(map(len, self.images[self.protocol])) for image in self.images[self.protocol])
        if left_out:
            rows.append(f"(Without the leaves: {left_out} of the images are too large; compare=true has them anyway.)")
        return [_header("", means[FUSION]), *rows]

    def _protocols_table(self) -> list[str]:
        """Return the fusion by each protocol; LPIPS knows no protocol."""
        means = {protocol: self.means(protocol) for protocol in self.images}
        rows = [_row(name, m[FUSION]._replace(lpips=None), m[BICUBIC]) for name, m in means.items()]
        return [_header("fusion by"), *rows, "(Figures of different protocols are not comparable.)"]

    def _worst_table(self) -> list[str]:
        images = zip(self.pairs, self.images[self.protocol], strict=True)
        worst = sorted(images, key=lambda one: one[1][FUSION].psnr)[:_WORST]
        return [
            _header("worst", worst[0][1][FUSION]),
            *(f"{_row('', image[FUSION], image[BICUBIC])}  {pair.lr.name}" for pair, image in worst),
        ]

    def _as_dict(self) -> dict[str, Any]:
        main, *others = self.images
        written: dict[str, Any] = {"protocol": main, "scale": self.scale, **self._of_protocol(main)}
        if others:
            written["protocols"] = {protocol: self._of_protocol(protocol) for protocol in others}
        return written

    def _of_protocol(self, protocol: str) -> dict[str, Any]:
        means = self.means(protocol)
        return {
            "mean": means[FUSION].as_dict(),
            "images": [
                {"lr": str(pair.lr), "hr": str(pair.hr), **image[FUSION].as_dict()}
                for pair, image in zip(self.pairs, self.images[protocol], strict=True)
            ],
            "methods": {name: figures.as_dict() for name, figures in means.items()},
        }

    def _csv_row(self, number: int) -> dict[str, Any]:
        """Return the row of an image: other protocols' columns bear their names."""
        row: dict[str, Any] = {"lr": self.pairs[number].lr, "hr": self.pairs[number].hr}
        for protocol, images in self.images.items():
            suffix = "" if protocol == self.protocol else f"_{protocol}"
            figures = images[number][FUSION]._asdict()
            row |= {name + suffix: figure for name, figure in figures.items() if figure is not None}
        return row


def _mean(images: list[Scores]) -> Scores:
    psnrs, ssims, lpips = zip(*images, strict=True)
    count = len(images)
    # All images have LPIPS, or none.
    return Scores(sum(psnrs) / count, sum(ssims) / count, None if None in lpips else sum(lpips) / count)


def _header(label: str, figures: Scores | None = None) -> str:
    header = f"{label:12}{'PSNR (dB)':>10}{'over bicubic':>14}{'SSIM':>9}"
    return header if figures is None or figures.lpips is None else f"{header}{'LPIPS':>9}"


def _row(label: str, figures: Scores, base: Scores) -> str:
    row = f"{label:12}{figures.psnr:10.2f}{figures.psnr - base.psnr:+14.2f}{figures.ssim:9.4f}"
    return row if figures.lpips is None else f"{row}{figures.lpips:9.4f}"
