"""Evaluation of one test image, whose outputs are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from d2csr.data.batch import Batch
from d2csr.data.datamodule import PairDataModule
from d2csr.data.lists import ImagePair
from d2csr.errors import ConfigError, did_you_mean
from d2csr.evaluation.evaluation_task import EvaluationTask, Scoring
from d2csr.evaluation.panels import panel_name
from d2csr.evaluation.report import ImageResult
from d2csr.models import SRNetwork

_SHOWN = 20  # names in a message


def evaluate_image(
    networks: Mapping[str, SRNetwork],
    datamodule: PairDataModule,
    trainer: pl.Trainer,
    name: str,
    scoring: Scoring,
    sr: Mapping[str, Path],
) -> ImageResult:
    """Return the outputs and scores of all methods on the test image of a name, with a trainer of one device.

    The name is that of the LR or the HR file, with or without its suffix, or of the image's panel. ``sr`` holds folders
    or lists of the SR images of other methods, by method.

    Raises:
        ConfigError: no image has this name, or several have it.
        DataError: a list, a pair or an SR image cannot be used.
    """
    datamodule.setup("test")
    index = find_image(datamodule.test_pairs, name)
    results: list[ImageResult] = []

    def keep(result: ImageResult, folder: Path) -> None:
        results.append(result)

    task = EvaluationTask(networks, scoring, Path(), scale=datamodule.scale, sr=sr, on_result=keep)
    trainer.test(task, datamodule=_SingleImage(datamodule, index), verbose=False)
    return results[0]


def find_image(pairs: Sequence[ImagePair], name: str) -> int:
    """Return the number of the pair that has a name; raise a ConfigError if none or several have it."""
    found = [
        number
        for number, pair in enumerate(pairs)
        if name in (panel_name(pairs, number), pair.lr.name, pair.lr.stem, pair.hr.name, pair.hr.stem)
    ]
    if len(found) == 1:
        return found[0]
    shown = [panel_name(pairs, number) for number in found or range(len(pairs))]
    if found:
        raise ConfigError(f"image: {name} is the name of {len(found)} images; choose one of {', '.join(shown)}.")
    rest = f", … ({len(shown)} images)" if len(shown) > _SHOWN else ""
    advice = did_you_mean(name, shown) or f"The names are {', '.join(shown[:_SHOWN])}{rest}."
    raise ConfigError(f"image: no test image is called {name}. {advice}")


class _SingleImage(pl.LightningDataModule):
    """One test image of a data module that is set up already; all pairs are known, so that names are matched."""

    def __init__(self, datamodule: PairDataModule, index: int) -> None:
        super().__init__()
        self.test_pairs = datamodule.test_pairs
        self.cache_dir = datamodule.cache_dir
        self._datamodule = datamodule
        self._index = index

    def test_dataloader(self) -> DataLoader[Any]:
        return self._datamodule.test_image_dataloader(self._index)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return self._datamodule.on_after_batch_transfer(batch, dataloader_idx)
