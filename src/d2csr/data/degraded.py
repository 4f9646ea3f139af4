"""LightningDataModule of HR images alone, whose LR images are made by a random degradation."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from d2csr.checks import keys_below, number, one_of
from d2csr.data.datamodule import PairDataModule
from d2csr.data.dataset import DegradedPatchDataset
from d2csr.data.degraded_pairs import DegradedPairs
from d2csr.data.images import SUFFIXES
from d2csr.data.lists import ImagePair
from d2csr.data.random_degradation import RandomDegradation
from d2csr.data.sources import PairSource
from d2csr.data.splits import choose_share
from d2csr.distributed import gather_and_raise
from d2csr.errors import ConfigError, DataError
from d2csr.files import require_folder, user_path

#: Caches of HR images.
CACHES = ("none", "ram", "disk")


class DegradedDataModule(PairDataModule):
    """Training patches of HR images, degraded when they are drawn; validation and test pairs of a fixed degradation.

    The pairs for validation and test are written to ``list_dir`` as PNG files with lists, which the checkpoint names,
    unless lists of other pairs are given. Without test images, the validation images are the test images.

    Args:
        hr: the folder of HR images for training, with its subfolders.
        val_hr: the folder of HR images for validation; by default a share of those of ``hr``.
        test_hr: the folder of HR images for test.
        val_share: the share of the images of ``hr`` to validate on, without ``val_hr`` and ``val_list``.
        degradation: settings of :class:`d2csr.data.random_degradation.RandomDegradation`.
        name: of the data set.
        list_dir: the folder for the pairs of validation and test.
        settings: those of :class:`d2csr.data.datamodule.PairDataModule`, without ``train_list`` and ``root``.

    Raises:
        ConfigError: a setting has an impossible value, or settings exclude each other.
        DataError: a folder is missing or holds too few images.
    """

    def __init__(
        self,
        *,
        hr: str,
        val_hr: str | None = None,
        test_hr: str | None = None,
        val_share: float | None = 0.05,
        degradation: dict[str, Any] | None = None,
        name: str = "degraded",
        list_dir: str = "degraded",
        **settings: Any,
    ) -> None:
        for key in ("train_list", "root"):
            if settings.get(key) is not None:
                raise ConfigError(f"{key}: names pairs; data=degraded takes HR images, data.hr=FOLDER.")
        one_of("cache", settings.get("cache", "none"), CACHES)
        super().__init__(name=name, list_dir=list_dir, **settings)
        with keys_below("degradation"):
            self.degradation = RandomDegradation(degradation or {})
        self._patch_dataset = partial(DegradedPatchDataset, degradation=self.degradation)
        self._find_images(user_path(hr), val_hr, test_hr, val_share)
        self._problems: list[str] = []

    def _find_images(self, hr: Path, val_hr: str | None, test_hr: str | None, val_share: float | None) -> None:
        """Find the HR images of each split; set the lists of the pairs that :meth:`prepare_data` writes."""
        self._train_images = find_images(hr, "hr")
        held_out: dict[str, tuple[Path, list[Path]]] = {}
        for split, folder in (("val", val_hr), ("test", test_hr)):
            if folder is not None:
                if getattr(self.splits, f"{split}_list") is not None:
                    raise ConfigError(f"{split}_hr and {split}_list exclude each other.")
                held_out[split] = user_path(folder), find_images(folder, f"{split}_hr")
        if val_hr is None and self.splits.val_list is None:
            if val_share is None:
                raise ConfigError("val_share: name a share of the HR images, data.val_hr=FOLDER or data.val_list=LIST.")
            number("val_share", val_share, above=0, below=1)
            if len(self._train_images) < 2:
                raise DataError(
                    f"{hr}: holds one image; data.val_share={val_share:g} needs 2. Or name data.val_hr=FOLDER."
                )
            names = {path.relative_to(hr).as_posix(): path for path in self._train_images}
            chosen = choose_share(names, val_share)
            held_out["val"] = hr, [path for name, path in names.items() if name in chosen]
            self._train_images = [path for name, path in names.items() if name not in chosen]
        self._written = [
            DegradedPairs(images, folder, user_path(self.splits.list_dir), split, self.scale, self.degradation)
            for split, (folder, images) in held_out.items()
        ]
        lists: dict[str, Any] = {f"{one.split}_list": str(one.list_file) for one in self._written}
        self.splits = replace(self.splits, **lists)

    def prepare_data(self) -> None:
        """Write the pairs of validation and test if they are missing; :meth:`setup` raises the errors."""
        try:
            for pairs in self._written:
                pairs.write(self.on_error)
        except DataError as error:  # Lightning calls this on one rank of a machine: the others would wait forever
            self._problems.append(str(error))

    def setup(self, stage: str) -> None:
        """Read and check the images and pairs that the stage needs; raise the errors of :meth:`prepare_data`, too."""
        gather_and_raise(self._problems)
        super().setup(stage)

    def _pairs(self, split: str) -> list[ImagePair]:
        """Return the pairs of a split; for training, pairs of an HR image with itself."""
        if split != "train":
            return super()._pairs(split)
        return [ImagePair(lr=path, hr=path, origin="data.hr") for path in self._train_images]

    def _prepared(self, split: str, **settings: Any) -> tuple[list[ImagePair], PairSource]:
        return super()._prepared(split, hr_alone=split == "train", **settings)


def find_images(folder: str | Path, key: str) -> list[Path]:
    """Return the images of a folder and its subfolders, ordered by path; hidden files and folders are skipped.

    Args:
        folder: the folder; ``~`` is expanded.
        key: the setting that names it, for messages.

    Raises:
        DataError: the folder is missing, cannot be read, or holds no image.
    """
    folder = require_folder(folder, f"Name the folder of HR images by data.{key}=FOLDER.")

    def unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}).")

    images = []
    for place, subfolders, names in os.walk(folder, onerror=unreadable):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        images += [Path(place) / name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    if not images:
        raise DataError(f"{folder}: holds no image ({', '.join(SUFFIXES)}). Name another folder by data.{key}=FOLDER.")
    return sorted(images)
