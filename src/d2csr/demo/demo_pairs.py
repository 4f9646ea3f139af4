"""The demo's LR/HR pairs as PNG files and lists, made of the built-in photographs when they are first needed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from PIL import Image

from d2csr import __version__
from d2csr.data.datamodule import PairDataModule
from d2csr.data.lists import ImagePair, write_list
from d2csr.demo.degradation import SCALES, degrade
from d2csr.demo.photographs import PHOTOS, SPLITS, Photo, photos_of
from d2csr.errors import ConfigError, DataError


def write_pairs(folder: str | Path, scale: int, *, seed: int = 0) -> dict[str, Path]:
    """Write the pairs of every photograph and their lists, unless they are there already.

    Written are ``x{scale}/{split}/{name}_HR.png`` (cropped to a multiple of the scale, at the bottom and at the right),
    ``x{scale}/{split}/{name}_LR{scale}.png`` and ``demo_x{scale}_{split}.txt``, whose paths are relative, so that the
    folder can be moved. ``x{scale}/made_with.json``, written last, says what they were made with; a call that would
    make them with the same writes nothing. Several processes may call at once with the same arguments: each file
    appears whole or not at all, and all of them write the same bytes.

    Args:
        folder: where to write; made if it is missing. Holds any number of scales.
        scale: one of :data:`d2csr.demo.degradation.SCALES`.
        seed: any integer; of the blur and the noise. Each photograph gets its own of both.

    Returns:
        The path of the list of each split: ``train``, ``val`` and ``test``.

    Raises:
        ConfigError: the demo has no such scale.
        DataError: the folder cannot be written to.
    """
    if scale not in SCALES:
        raise ConfigError(f"The demo has no scale {scale}: choose one of {', '.join(map(str, SCALES))}.")
    folder = Path(folder)
    lists = {split: folder / f"demo_x{scale}_{split}.txt" for split in SPLITS}
    try:
        if not _is_made(folder, scale, seed, lists):
            _make(folder, scale, seed, lists)
    except OSError as error:
        raise DataError(f"{folder}: the demo's pairs cannot be written there ({error}). Name another folder.") from None
    return lists


def _is_made(folder: Path, scale: int, seed: int, lists: dict[str, Path]) -> bool:
    try:
        made_with = _stamp(folder, scale).read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    pairs = [_pair(photo, scale) for photo in PHOTOS]
    files = [*lists.values(), *(folder / path for pair in pairs for path in (pair.lr, pair.hr))]
    return made_with == _settings(scale, seed) and all(file.is_file() for file in files)


def _make(folder: Path, scale: int, seed: int, lists: dict[str, Path]) -> None:
    # Gone until all is written: were this call cut short, nothing would vouch for a mixture of old and new.
    _stamp(folder, scale).unlink(missing_ok=True)
    for photo in PHOTOS:
        _write_pair(folder, photo, scale, seed)
    for split, path in lists.items():
        pairs = [_pair(photo, scale) for photo in photos_of(split)]
        _replace(path, partial(write_list, pairs=pairs))
    settings = _settings(scale, seed)
    _replace(_stamp(folder, scale), lambda temporary: temporary.write_text(settings, encoding="utf-8"))


def _write_pair(folder: Path, photo: Photo, scale: int, seed: int) -> None:
    hr = photo.read()
    height, width = (side // scale * scale for side in hr.shape[:2])
    # Of the name and not of the position, so that one more photograph leaves the others as they are.
    own_seed = zlib.crc32(f"{seed} {scale} {photo.name}".encode())
    pair = _pair(photo, scale)
    _write_png(folder / pair.hr, hr[:height, :width])
    _write_png(folder / pair.lr, degrade(hr, scale, seed=own_seed))


def _pair(photo: Photo, scale: int) -> ImagePair:
    """The paths of a photograph's pair, relative to the demo's folder."""
    place = Path(f"x{scale}") / photo.split
    return ImagePair(lr=place / f"{photo.name}_LR{scale}.png", hr=place / f"{photo.name}_HR.png")


def _stamp(folder: Path, scale: int) -> Path:
    return folder / f"x{scale}" / "made_with.json"


def _settings(scale: int, seed: int) -> str:
    """Everything that the files depend on, as text."""
    photographs = {split: [photo.name for photo in photos_of(split)] for split in SPLITS}
    return json.dumps({"d2csr": __version__, "scale": scale, "seed": seed, "photographs": photographs}, indent=2) + "\n"


def _write_png(path: Path, image: np.ndarray) -> None:
    picture = Image.fromarray(image)
    _replace(path, lambda temporary: picture.save(temporary, format="PNG"))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a new file beside ``path``, then put it in its place in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class DemoDataModule(PairDataModule):
    """A :class:`d2csr.data.datamodule.PairDataModule` that first writes the built-in photographs' pairs and lists.

    They go to ``list_dir``, where the lists are then found as those of any data set are. All arguments are those of
    :class:`d2csr.data.datamodule.PairDataModule`.
    """

    def __init__(self, *, name: str = "demo", **settings: Any) -> None:
        super().__init__(name=name, **settings)

    def prepare_data(self) -> None:
        """Write the pairs, unless they are there.

        Raises:
            DataError: the folder cannot be written to.
        """
        write_pairs(self.splits.list_dir, self.scale)
