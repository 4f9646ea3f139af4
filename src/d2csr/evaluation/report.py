"""The figures of an evaluation: ``metrics.json``, ``metrics.csv``, and the table on the screen."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from d2csr.data.lists import ImagePair


class Figures(NamedTuple):
    """PSNR in dB and SSIM."""

    psnr: float
    ssim: float

    def as_dict(self) -> dict[str, float | None]:
        """Return both by name; an infinite PSNR (of identical images) is null, since JSON has no infinity."""
        return {"psnr": self.psnr if math.isfinite(self.psnr) else None, "ssim": self.ssim}


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        protocol: by which the figures were taken.
        scale: s.
        pairs: the test pairs.
        images: for each pair the figures of each method, in the same order of methods; the last one is the fusion.
    """

    protocol: str
    scale: int
    pairs: list[ImagePair]
    images: list[dict[str, Figures]]

    @property
    def methods(self) -> dict[str, Figures]:
        """The mean over images of each method."""

        def mean(name: str) -> Figures:
            psnrs, ssims = zip(*(image[name] for image in self.images), strict=True)
            return Figures(sum(psnrs) / len(psnrs), sum(ssims) / len(ssims))

        return {name: mean(name) for name in self.images[0]}

    def write(self, folder: str | Path) -> Path:
        """Write ``metrics.json`` and ``metrics.csv`` and return the path of the first."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.json"
        path.write_text(json.dumps(self._as_dict(), indent=2) + "\n", encoding="utf-8")
        with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["lr", "hr", "psnr", "ssim"])
            for pair, image in zip(self.pairs, self.images, strict=True):
                writer.writerow([pair.lr, pair.hr, *_fusion(image)])
        return path

    def table(self) -> str:
        """Return the mean of each method as a table, with its distance to bicubic."""
        methods = self.methods
        base = methods["bicubic"]
        count = len(self.images)
        lines = [
            f"×{self.scale}, {count} image{'s' * (count > 1)}, protocol {self.protocol}",
            f"{'':12}{'PSNR (dB)':>10}{'over bicubic':>14}{'SSIM':>9}",
        ]
        lines += [
            f"{name:12}{mean.psnr:10.2f}{mean.psnr - base.psnr:+14.2f}{mean.ssim:9.4f}"
            for name, mean in methods.items()
        ]
        return "\n".join(lines)

    def _as_dict(self) -> dict[str, Any]:
        methods = self.methods
        return {
            "protocol": self.protocol,
            "scale": self.scale,
            "mean": _fusion(methods).as_dict(),
            "images": [
                {"lr": str(pair.lr), "hr": str(pair.hr), **_fusion(image).as_dict()}
                for pair, image in zip(self.pairs, self.images, strict=True)
            ],
            "methods": {name: figures.as_dict() for name, figures in methods.items()},
        }


def _fusion(image: dict[str, Figures]) -> Figures:
    return image["fusion"]
