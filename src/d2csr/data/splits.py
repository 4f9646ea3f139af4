"""Pairs of each split, from lists, the list folder or the data set's own folder; writing of the list folder."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from d2csr.checks import number, whole_number
from d2csr.data.discovery import discover, require_root
from d2csr.data.layouts import LAYOUTS
from d2csr.data.lists import ImagePair, read_list, require_list, write_list
from d2csr.errors import ConfigError, DataError
from d2csr.files import user_path

log = logging.getLogger(__name__)

Found = dict[str, list[ImagePair]]  # pairs by split

# Commands that write the lists of a data set, where d2csr-lists does not.
_WRITTEN_BY = {"photographs": "python benchmarks/photographs.py {list_dir} --scale {scale}"}


@dataclass(frozen=True)
class Splits:
    """Sources of the pairs of each split.

    A list that is not given defaults to the one before it: test to validation, validation to training. If no list is
    given, the pairs are found in ``root``; without ``root``, the list is read from ``list_dir``, under the name that
    ``d2csr-lists`` writes, such as ``realsr_x4_train.txt``. With a list, ``root`` is the folder of its relative paths.

    Without validation pairs of their own, ``root`` and ``list_dir`` validate on the test pairs, as the official code.
    ``val_share`` is the share of the training scenes of ``root`` to validate on, the same scenes in all runs. ``~`` in
    a path is the home folder.
    """

    name: str
    scale: int
    train_list: str | None = None
    val_list: str | None = None
    test_list: str | None = None
    list_dir: str = "lists"
    root: str | None = None
    val_share: float | None = None

    def __post_init__(self) -> None:
        for name in ("train_list", "val_list", "test_list", "list_dir", "root"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, str(user_path(str(path))))

    def pairs(self, split: str) -> list[ImagePair]:
        """Return the pairs of ``train``, ``val`` or ``test``; log a warning if those of ``val`` are not its own.

        Raises:
            DataError: the list or the folder cannot be used, or holds no pairs of this split.
        """
        if split == "val":
            self._warn()
        self.require(split)
        path = self.list_of(split)
        if path is not None:
            return read_list(path, self.root)
        assert self.root is not None
        found = hold_out(discover(self.name, self.root, self.scale), self.name, self.scale, self.val_share)
        pairs = found.get(self._in_root(split))
        if not pairs:
            raise DataError(f"{self.root}: no {split} images at scale {self.scale} were found in this folder.")
        return pairs

    def list_of(self, split: str) -> Path | None:
        """Return the list of ``train``, ``val`` or ``test``; None if its pairs are found in ``root``."""
        named = [self.train_list, self.val_list, self.test_list][: ("train", "val", "test").index(split) + 1]
        if given := [path for path in named if path is not None]:
            return Path(given[-1])
        if self.root is not None:
            return None
        path = self._in_list_dir(split)
        return self._in_list_dir("test") if split == "val" and not path.is_file() else path

    def require(self, split: str) -> None:
        """Raise a DataError if the list of a split is missing, or without a list the folder ``root``."""
        path = self.list_of(split)
        if path is None:
            require_root(self.root or "", self.name)
        elif self.name in _WRITTEN_BY and path == self._in_list_dir(split) and not path.exists():
            command = _WRITTEN_BY[self.name].format(list_dir=self.list_dir, scale=self.scale)
            raise DataError(f"{path}: no such list. Write it and its pairs, in the source tree of d2csr: {command}")
        else:
            require_list(path)

    def source(self, split: str) -> str:
        """Return where the pairs of a split are from, as an absolute path; equal texts mean the same images."""
        path = self.list_of(split)
        if path is not None:
            return str(path.resolve())
        return f"{Path(self.root or '').resolve()} ({self._in_root(split)} images)"

    def _in_root(self, split: str) -> str:
        return "test" if split == "val" and self.val_share is None else split

    def _warn(self) -> None:
        if self.val_list is None and self.train_list is not None:
            log.warning("No data.val_list is given: validating on the training list, %s.", self.train_list)
        elif self.source("val") == self.source("test"):
            own = "data.val_share=0.05 holds out" if self.list_of("val") is None else "d2csr-lists … val=0.05 writes"
            advice = f"{own} validation pairs from the training pairs"
            if self.name == "degraded":
                advice = "name other test images by data.test_hr=FOLDER or data.test_list=LIST"
            log.warning(
                "Validating on the test images, %s: best.ckpt is selected on them. Report the scores of last.ckpt, as "
                "the paper does; or %s.",
                *(self.source("val"), advice),
            )

    def _in_list_dir(self, split: str) -> Path:
        return Path(self.list_dir) / f"{self.name}_x{self.scale}_{split}.txt"


def write_lists(
    dataset: str,
    root: str | Path,
    scale: int,
    output: str | Path,
    *,
    val: float | None = None,
    seed: int = 0,
    scene: str | None = None,
) -> dict[str, Path]:
    """Find pairs by :func:`d2csr.data.discovery.discover`; write ``{dataset}_x{scale}_{split}.txt`` into ``output``.

    ``val``, ``seed`` and ``scene`` are those of :func:`hold_out`. Returns the list of each split that is found, whose
    paths are absolute; a DataError is raised also if a list cannot be written.
    """
    found = hold_out(discover(dataset, user_path(root).resolve(), scale), dataset, scale, val, seed=seed, scene=scene)
    folder = user_path(output)
    return {split: write_list(folder / f"{dataset}_x{scale}_{split}.txt", pairs) for split, pairs in found.items()}


def hold_out(
    found: Found, dataset: str, scale: int, share: float | None, *, seed: int = 0, scene: str | None = None
) -> Found:
    """Move the pairs of a share of the training scenes to the split ``val``; a scene is never in both.

    Args:
        found: the result of :func:`d2csr.data.discovery.discover`.
        dataset: its data set. The first group of its pattern of names is the scene: patches have the scene of their
            image.
        scale: the upscaling factor.
        share: of the scenes, above 0 and below 1, rounded to at least one scene; None leaves the pairs as they are.
        seed: chooses the scenes. Their order does not matter, and each added scene changes the choice little.
        scene: regular expression for names of HR images without extension, in place of the data set's; its first group
            is the scene.

    Raises:
        ConfigError: a setting has an impossible value.
        DataError: there are fewer than two training scenes.
    """
    if share is None:
        return found
    number("val", share, above=0, below=1)
    whole_number("seed", seed, least=0)
    train = found.get("train", [])
    scenes = _scenes(train, _pattern(scene, LAYOUTS[dataset].names.replace("{scale}", str(scale))))
    if len(set(scenes)) < 2:
        where = train[0].origin if train else dataset
        raise DataError(f"{where}: {len(set(scenes))} training scenes; val={share:g} needs at least 2. Omit val=….")
    held_out = choose_share(scenes, share, f"{seed}:")
    split: Found = {"train": [], "val": []}
    for pair, name in zip(train, scenes, strict=True):
        split["val" if name in held_out else "train"].append(pair)
    return split | {name: pairs for name, pairs in found.items() if name != "train"}


def choose_share(names: Iterable[str], share: float, salt: str = "") -> set[str]:
    """Return a share of at least two names, at least one and not all; a further name changes the choice little."""

    def digest(name: str) -> bytes:
        return hashlib.sha256(f"{salt}{name}".encode(errors="surrogateescape")).digest()

    by_hash = sorted(set(names), key=digest)
    return set(by_hash[: min(max(1, round(share * len(by_hash))), len(by_hash) - 1)])


def _pattern(scene: str | None, default: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(default if scene is None else scene, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(f"scene: {scene!r} is not a regular expression ({error}).") from None
    if not pattern.groups:
        raise ConfigError(rf"scene: {scene!r} has no group; put the scene in one, such as '(.+)_\d+'.")
    return pattern


def _scenes(pairs: Sequence[ImagePair], pattern: re.Pattern[str]) -> list[str]:
    """Return the scene of each pair; a name that the pattern does not match is a scene of its own."""
    matches = [(pattern.fullmatch(pair.hr.stem), pair.hr.stem) for pair in pairs]
    return [match[1] or stem if match else stem for match, stem in matches]
