"""LightningDataModule of LR/HR pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, default_collate

from d2csr.checks import SCALES, flag, one_of, whole_number
from d2csr.data.batch import PADDING, Batch, to_float
from d2csr.data.cache import cache_folder
from d2csr.data.check import ON_ERROR, prepare
from d2csr.data.dataset import ErrorReportingDataset, PatchDataset, WholeImageDataset, without_good_items
from d2csr.data.device_cache import DeviceCache
from d2csr.data.lists import ImagePair
from d2csr.data.sampler import EvaluationSampler, PatchSampler
from d2csr.data.sources import CACHES, PairSource
from d2csr.data.splits import Splits
from d2csr.data.worker_loader import WorkerLoader
from d2csr.distributed import raise_on_all_ranks
from d2csr.errors import ConfigError, DataError

MAX_PATCHES = 1_000_000  # of an image: an epoch is a permutation of all patches in memory


class PairDataModule(pl.LightningDataModule):
    """Random patches for training, whole images for validation and test.

    Images are uint8 until they are on the device, then float32; :data:`d2csr.data.batch.Batch` describes a batch.
    The defaults suit evaluation; those of training are in ``conf/data/pairs.yaml``.

    Args:
        scale: s; 2, 3, 4 or 8.
        name: the data set; this and the next six are described in :class:`d2csr.data.splits.Splits`.
        train_list: the list of training pairs.
        val_list: the list of validation pairs.
        test_list: the list of test pairs.
        list_dir: the folder of the lists.
        root: the data set's folder.
        val_share: the share of the training scenes of ``root`` to validate on.
        batch_size: training patches in a batch, per device; needed for training.
        patch_size: the side of the LR patch in pixels; needed for training.
        patches_per_image: training patches from each pair in an epoch; the paper uses one.
        augment: flips and transposition.
        cache: ``none`` decodes a training image at each access, ``ram`` keeps all of them in memory, ``disk`` on disk.
            ``device`` also copies them to the device at the start and cuts the patches there, without workers.
        cache_dir: the folder of the disk cache and the image index; by default ``$D2CSR_CACHE_DIR``, or ``d2csr`` in
            the user's cache folder.
        on_error: with pairs that cannot be used, ``raise`` an error or ``skip`` them; all are named.
        num_workers: processes that prepare batches; 0 does it in the training process. With ``cache=device`` they
            prepare validation images alone.
        seed: of order, crops and augmentation.

    Raises:
        ConfigError: a setting has an impossible value.
    """

    def __init__(
        self,
        *,
        scale: int,
        name: str = "pairs",
        train_list: str | None = None,
        val_list: str | None = None,
        test_list: str | None = None,
        list_dir: str = "lists",
        root: str | None = None,
        val_share: float | None = None,
        batch_size: int | None = None,
        patch_size: int | None = None,
        patches_per_image: int = 1,
        augment: bool = True,
        cache: str = "none",
        cache_dir: str | None = None,
        on_error: str = "raise",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.scale = one_of("scale", scale, SCALES)
        self.batch_size = 0 if batch_size is None else whole_number("batch_size", batch_size)  # 0: evaluation only
        self.patch_size = 0 if patch_size is None else whole_number("patch_size", patch_size)
        self.patches_per_image = whole_number("patches_per_image", patches_per_image, most=MAX_PATCHES)
        self.num_workers = whole_number("num_workers", num_workers, least=0)
        self.seed = whole_number("seed", seed, least=0)
        self.augment = flag("augment", augment)
        self.cache = one_of("cache", cache, CACHES)
        self.on_error = one_of("on_error", on_error, ON_ERROR)
        self.cache_dir = cache_folder(cache_dir)
        if val_share is not None and (root is None or train_list is not None):
            raise ConfigError("val_share: needs data.root without lists; d2csr-lists val=… writes a validation list.")
        self.splits = Splits(name, scale, train_list, val_list, test_list, list_dir, root, val_share)
        self.train_pairs: list[ImagePair] = []
        self.val_pairs: list[ImagePair] = []
        self.test_pairs: list[ImagePair] = []
        self._patch_dataset: Callable[..., PatchDataset] = PatchDataset
        self._start = 0, 0

    @classmethod
    def of(cls, trainer: pl.Trainer) -> PairDataModule | None:
        """Return the data module of a trainer; None if it is of another class."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it
        return data if isinstance(data, cls) else None

    @raise_on_all_ranks
    def setup(self, stage: str) -> None:
        """Read and check the pairs of the splits that the stage needs.

        Raises:
            DataError: a list or a pair cannot be used, or there are too few pairs for one batch.
            ConfigError: training has no ``batch_size`` or ``patch_size``.
        """
        if stage == "fit":
            self._setup_training()
        if stage in ("fit", "validate"):
            self.val_pairs, source = self._prepared("val")
            self._val = WholeImageDataset(source)
        if stage == "test":
            self.test_pairs, source = self._prepared("test")
            self._test = WholeImageDataset(source)

    def start_at(self, epoch: int, batch: int) -> None:
        """Start training after ``epoch`` epochs and ``batch`` batches; call this before ``train_dataloader``."""
        self._start = epoch, batch

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of one epoch."""
        dataset: Any = self._train
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        sampler = PatchSampler(len(dataset), self.batch_size, self.seed, *self._rank(), *self._start, overfit)
        if self.cache == "device":  # nothing is left for workers, for pinned memory, or to fail
            return DataLoader(dataset, self.batch_size, sampler=sampler, generator=torch.Generator())
        return self._loader(dataset, batch_size=self.batch_size, sampler=sampler)

    def val_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        """Return the validation images of this rank, one a batch."""
        return self._evaluation_loader(self._val)

    def test_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        """Return the test images of this rank, one a batch."""
        return self._evaluation_loader(self._test)

    def test_image_dataloader(self, index: int) -> DataLoader[Any]:
        """Return a single test image, on every rank."""
        return self._loader(self._test, batch_size=1, sampler=[index])

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Convert uint8 to float32 on the device: uint8 is a quarter of the bytes to transfer."""
        return to_float(batch)

    def describe(self) -> dict[str, Any]:
        """Return the data set, its lists and folders as plain values with absolute paths, for checkpoints."""
        plain = ("name", "scale", "val_share")
        splits = {
            key: value if key in plain or value is None else str(Path(value).absolute())
            for key, value in asdict(self.splits).items()
        }
        return {**splits, "validated_on": self.splits.source("val")}

    def _setup_training(self) -> None:
        if not self.batch_size or not self.patch_size:
            raise ConfigError("data.batch_size and data.patch_size are needed for training.")
        self.train_pairs, pairs = self._prepared("train", patch_size=self.patch_size, cache=self.cache)
        source = DeviceCache(pairs, *self._device()) if self.cache == "device" else pairs
        settings = self.scale, self.patch_size, self.patches_per_image, self.seed, self.augment
        self._train = self._patch_dataset(source, *settings)
        devices = self._rank()[1]
        if len(self._train) < devices * self.batch_size:
            raise DataError(
                f"{self.train_pairs[0].origin}: {len(self._train)} patches an epoch ({len(self.train_pairs)} pairs × "
                f"data.patches_per_image={self.patches_per_image}) do not fill one batch of {self.batch_size} on "
                f"{devices} device(s). Lower data.batch_size or raise data.patches_per_image."
            )

    def _pairs(self, split: str) -> list[ImagePair]:
        return self.splits.pairs(split)

    def _prepared(self, split: str, **settings: Any) -> tuple[list[ImagePair], PairSource]:
        settings = {"scale": self.scale, "cache_dir": self.cache_dir, "on_error": self.on_error, **settings}
        return prepare(lambda: self._pairs(split), **settings)

    def _evaluation_loader(self, images: WholeImageDataset) -> DataLoader[Any]:
        return self._loader(images, batch_size=1, sampler=EvaluationSampler(len(images), *self._rank()))

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _device(self) -> tuple[torch.device, int]:
        """Return the device of this process, and how many processes of this machine share its memory."""
        if self.trainer is None:
            return torch.device("cpu"), 1
        device = self.trainer.strategy.root_device
        return device, self.trainer.num_devices if device.type == "cpu" else 1

    def _loader(self, dataset: Any, **kwargs: Any) -> DataLoader[Any]:
        if self._rank()[1] > 1:
            lr, hr = (np.zeros((3, side, side), np.uint8) for side in (32, 32 * self.scale))
            dataset = ErrorReportingDataset(dataset, stand_in={"lr": lr, "hr": hr, "index": PADDING})
        return WorkerLoader(
            dataset,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available() and (self.trainer is None or self._device()[0].type != "cpu"),
            collate_fn=_collate,
            generator=torch.Generator(),  # otherwise each new iterator would advance torch's random state
            **kwargs,
        )


def _collate(items: list[dict[str, Any]]) -> Any:
    return default_collate(without_good_items(items))
