"""The LightningDataModule of LR/HR pairs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from d2csr.checks import flag, one_of, whole_number
from d2csr.data.cache import cache_folder
from d2csr.data.check import ON_ERROR, prepare
from d2csr.data.dataset import CACHES, PairSource, PatchDataset, WholeImageDataset, to_float
from d2csr.data.lists import ImagePair
from d2csr.data.sampler import PADDING, Batch, EvaluationSampler, PatchSampler
from d2csr.data.splits import Splits
from d2csr.distributed import ErrorReportingDataset, raise_on_all_ranks
from d2csr.errors import DataError


class PairDataModule(pl.LightningDataModule):
    """Random patches for training, whole images for validation and test.

    A batch, :data:`d2csr.data.sampler.Batch`, is uint8 up to the device and float32 in [0, 1] there.

    Args:
        scale: s; 2, 3, 4 or 8.
        name: the data set, for the names of lists and for finding pairs below ``root``.
        train_list: the list of training pairs; :class:`d2csr.data.splits.Splits` tells the defaults of the lists.
        val_list: the list of validation pairs.
        test_list: the list of test pairs.
        list_dir: the folder in which lists are looked for.
        root: the data set's folder.
        batch_size: training patches in a batch, per device.
        patch_size: the side of the LR patch in pixels.
        patches_per_image: training patches from each pair in an epoch; the paper takes one.
        augment: flips and transposition.
        cache: ``none`` decodes a training image each time, ``ram`` keeps all of them decoded in memory, ``disk`` on
            disk, for all processes of the machine and all later runs.
        cache_dir: folder of the disk cache and of the image index; by default ``$D2CSR_CACHE_DIR``, or else ``d2csr``
            in the user's folder for caches.
        on_error: what happens if pairs cannot be used: ``raise`` names them all and ends, ``skip`` names them all and
            goes on without them.
        num_workers: processes that prepare batches; 0 does it in the training process.
        seed: the seed of order, crops and augmentation.
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
        batch_size: int = 4,
        patch_size: int = 96,
        patches_per_image: int = 1,
        augment: bool = True,
        cache: str = "none",
        cache_dir: str | None = None,
        on_error: str = "raise",
        num_workers: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for setting, value in (
            ("batch_size", batch_size),
            ("patch_size", patch_size),
            ("patches_per_image", patches_per_image),
        ):
            whole_number(setting, value)
        whole_number("num_workers", num_workers, least=0)
        flag("augment", augment)
        one_of("cache", cache, CACHES)
        one_of("on_error", on_error, ON_ERROR)
        self.splits = Splits(name, scale, train_list, val_list, test_list, list_dir, root)
        self.scale = scale
        self.batch_size = batch_size
        self.patch_size = patch_size
        self.patches_per_image = patches_per_image
        self.augment = augment
        self.cache = cache
        self.cache_dir = cache_folder(cache_dir)
        self.on_error = on_error
        self.num_workers = num_workers
        self.seed = seed
        self.train_pairs: list[ImagePair] = []
        self.val_pairs: list[ImagePair] = []
        self.test_pairs: list[ImagePair] = []
        self._start = {"epoch": 0, "batch": 0}
        self._sampler: PatchSampler | None = None

    @raise_on_all_ranks
    def setup(self, stage: str) -> None:
        """Read the lists and check every pair of the splits that the stage needs.

        Raises:
            DataError: a list or a pair cannot be used, or there are too few pairs for one batch.
            ConfigError: a setting has an impossible value.
        """
        if stage == "fit":
            self.train_pairs, source = self._prepared(self.splits.train, patch_size=self.patch_size, cache=self.cache)
            self._train = PatchDataset(
                source,
                scale=self.scale,
                patch_size=self.patch_size,
                patches_per_image=self.patches_per_image,
                seed=self.seed,
                augment=self.augment,
            )
            self._sampler = self._patch_sampler(self.train_pairs)
            self._sampler.load_state_dict(self._start)
        if stage in ("fit", "validate"):
            self.val_pairs, source = self._prepared(self.splits.val)
            self._val = WholeImageDataset(source)
        if stage == "test":
            self.test_pairs, source = self._prepared(self.splits.test)
            self._test = WholeImageDataset(source)

    def start_at(self, epoch: int, batch: int) -> None:
        """Let training begin in the middle: call it before :meth:`train_dataloader`.

        Args:
            epoch: epochs that are done.
            batch: batches of the next one that are done.
        """
        self._start = {"epoch": epoch, "batch": batch}
        if self._sampler is not None:
            self._sampler.load_state_dict(self._start)

    def train_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        """Return the batches of one epoch."""
        return self._loader(self._train, batch_size=self.batch_size, sampler=self._sampler)

    def val_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        """Return this process's share of the validation images, one a batch."""
        return self._share(self._val)

    def test_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        """Return this process's share of the test images, one a batch."""
        return self._share(self._test)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Turn bytes into floats on the device: the way there is four times as short for bytes."""
        return to_float(batch)

    def describe(self) -> dict[str, Any]:
        """Return where the data lies, as plain values with absolute paths: what a checkpoint keeps of it."""

        def absolute(path: str | None) -> str | None:
            return None if path is None else str(Path(path).absolute())

        s = self.splits
        return {
            "name": s.name,
            "scale": s.scale,
            "train_list": absolute(s.train_list),
            "val_list": absolute(s.val_list),
            "test_list": absolute(s.test_list),
            "list_dir": absolute(s.list_dir),
            "root": absolute(s.root),
        }

    def _prepared(self, read: Callable[[], list[ImagePair]], **settings: Any) -> tuple[list[ImagePair], PairSource]:
        return prepare(
            read,
            scale=self.scale,
            cache_dir=self.cache_dir,
            on_error=self.on_error,
            is_rank_zero=self._rank()[0] == 0,
            **settings,
        )

    def _patch_sampler(self, pairs: list[ImagePair]) -> PatchSampler:
        rank, world_size = self._rank()
        sampler = PatchSampler(len(self._train), self.batch_size, self.seed, rank, world_size)
        if len(sampler) == 0:
            raise DataError(
                f"{pairs[0].origin}: {len(self._train)} patches an epoch ({len(pairs)} pairs × data.patches_per_image="
                f"{self.patches_per_image}) do not fill one batch of {self.batch_size} on {world_size} device(s). "
                "Lower data.batch_size or raise data.patches_per_image."
            )
        return sampler

    def _share(self, images: WholeImageDataset) -> DataLoader[Any]:
        return self._loader(images, batch_size=1, sampler=EvaluationSampler(len(images), *self._rank()))

    def _rank(self) -> tuple[int, int]:
        """Return the number of this process, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, dataset: Any, **kwargs: Any) -> DataLoader[Any]:
        if self._rank()[1] > 1:
            lr, hr = (torch.zeros(3, side, side, dtype=torch.uint8) for side in (32, 32 * self.scale))
            dataset = ErrorReportingDataset(dataset, stand_in={"lr": lr, "hr": hr, "index": PADDING})
            kwargs["collate_fn"] = ErrorReportingDataset.collate
        return DataLoader(
            dataset,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=ignore_signals_in_worker,
            generator=torch.Generator(),  # of its own: else each new iterator would move torch's random state
            **kwargs,
        )


def ignore_signals_in_worker(worker: int = 0) -> None:
    """Let a worker ignore the signals that are meant for its training: that one still needs batches before it can stop.

    Ctrl-C in a terminal, and the end of a job on a cluster, reach all processes. The second SIGTERM is obeyed, since
    that is how Python ends the workers that are left over; and with its training gone a worker ends by itself.

    Args:
        worker: its number.
    """
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _ignore_once)


def _ignore_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, lambda *_: os._exit(0))
