"""Validation pairs held out from the training pairs, by scene."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from d2csr.checks import number, whole_number
from d2csr.data.layouts import LAYOUTS
from d2csr.data.lists import ImagePair
from d2csr.errors import ConfigError, DataError

Found = dict[str, list[ImagePair]]


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
    by_hash = sorted(set(scenes), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    held_out = set(by_hash[: min(max(1, round(share * len(by_hash))), len(by_hash) - 1)])
    split: Found = {"train": [], "val": []}
    for pair, name in zip(train, scenes, strict=True):
        split["val" if name in held_out else "train"].append(pair)
    return split | {name: pairs for name, pairs in found.items() if name != "train"}


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
