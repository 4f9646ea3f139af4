"""Pairs of the training, validation and test split: from lists, the list folder, or the data set's own folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from d2csr.data.discovery import discover
from d2csr.data.lists import ImagePair, read_list
from d2csr.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """Sources of the pairs of each split.

    A list that is not given defaults to the one before it: test to validation, validation to training. If no list is
    given, the pairs are found in ``root``; without ``root``, the list is read from ``list_dir``, under the name that
    ``d2csr-lists`` writes, such as ``realsr_x4_train.txt``. With a list, ``root`` is the folder of its relative paths.
    """

    name: str
    scale: int
    train_list: str | None = None
    val_list: str | None = None
    test_list: str | None = None
    list_dir: str = "lists"
    root: str | None = None

    def train(self) -> list[ImagePair]:
        """Return the training pairs."""
        return self._pairs("train", self.train_list)

    def val(self) -> list[ImagePair]:
        """Return the validation pairs."""
        if self.val_list is None and self.train_list is not None:
            log.warning("No data.val_list is given: validating on the training list, %s.", self.train_list)
        return self._pairs("val", self.val_list or self.train_list)

    def test(self) -> list[ImagePair]:
        """Return the test pairs."""
        return self._pairs("test", self.test_list or self.val_list or self.train_list)

    def _pairs(self, split: str, named: str | None) -> list[ImagePair]:
        if named is not None:
            return read_list(named, self.root)
        if self.root is not None:
            pairs = discover(self.name, self.root, self.scale).get("train" if split == "train" else "test")
            if not pairs:
                raise DataError(f"{self.root}: no {split} images at scale {self.scale} were found in this folder.")
            return pairs
        path = self._in_list_dir(split)
        if split == "val" and not path.is_file():  # the official code validates on the test list
            path = self._in_list_dir("test")
        return read_list(path)

    def _in_list_dir(self, split: str) -> Path:
        return Path(self.list_dir) / f"{self.name}_x{self.scale}_{split}.txt"
