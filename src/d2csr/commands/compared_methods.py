"""The methods that an evaluation compares, and the pairs that it compares them on, from a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from d2csr.checks import keys_below
from d2csr.commands.base import plain, texts
from d2csr.errors import CheckpointError, ConfigError, printable
from d2csr.files import require_regular_file, user_path

if TYPE_CHECKING:
    from d2csr.checkpoints import Checkpoint
    from d2csr.data.datamodule import PairDataModule
    from d2csr.models import SRNetwork

_LISTS = ("test_list", "val_list", "train_list")  # in the order of preference
_SOURCES = (*_LISTS, "root", "list_dir")
_MAX_PATH = 4096


@dataclass(frozen=True)
class Methods:
    """Checkpoints and SR images of other methods, with the test pairs."""

    checkpoints: dict[str, Checkpoint]  # by method
    networks: dict[str, SRNetwork]  # by method
    sr: dict[str, Path]  # folders or lists of other methods, by method
    datamodule: PairDataModule  # with the pairs

    @property
    def files(self) -> dict[str, Path]:
        """The files of the checkpoints, by method."""
        return {name: checkpoint.path for name, checkpoint in self.checkpoints.items()}


def find_methods(cfg: DictConfig) -> Methods:
    """Return the methods that ``ckpt`` and ``sr`` name, and their test pairs.

    Raises:
        ConfigError: two methods do not fit together, or no pairs are named.
        CheckpointError: a checkpoint cannot be read, or names no pairs.
        DataError: a list cannot be read, or the scale cannot be found.
    """
    from d2csr.checkpoints import read_checkpoint
    from d2csr.evaluation.runs import method_names

    ckpt, sr = ([Path(path) for path in texts(cfg, key)] for key in ("ckpt", "sr"))
    checkpoints = [read_checkpoint(path) for path in ckpt]
    names = method_names([checkpoint.path for checkpoint in checkpoints], sr)
    networks = {name: checkpoint.model() for name, checkpoint in zip(names, checkpoints, strict=False)}
    datamodule = _pair_data(cfg, checkpoints, [network.scale for network in networks.values()], sr)
    others = dict(zip(names[len(ckpt) :], sr, strict=True))
    return Methods(dict(zip(names, checkpoints, strict=False)), networks, others, datamodule)


def _pair_data(cfg: DictConfig, checkpoints: list[Any], scales: list[int], sr: list[Path]) -> PairDataModule:
    """Return the test pairs of the configuration, else of the checkpoints, else of a list of three columns, ``sr``."""
    from d2csr.data.datamodule import PairDataModule
    from d2csr.data.lists import read_list, read_sr_list
    from d2csr.evaluation.sr_images import ListedPairs, find_scale

    data = {key: value for key, value in plain(cfg.data).items() if value is not None}
    named = "test_list" in data or "root" in data
    listed = None
    if not named and checkpoints:
        data = {**_checkpoint_pairs(checkpoints), **data}
    elif not named:
        listed = next((path for path in map(user_path, sr) if path.is_file()), None)
        if listed is None:
            raise ConfigError("data.test_list=… is missing: the pairs of the images in sr=….")
    known = {str(one.path): scale for one, scale in zip(checkpoints, scales, strict=True)}
    if cfg.scale is not None:
        known["scale="] = cfg.scale
    if len(set(known.values())) > 1:
        differing = ", ".join(f"{name} ×{scale}" for name, scale in known.items())
        raise ConfigError(f"scale: differs: {differing}. Omit scale=, and name checkpoints of one scale.")
    if known:
        scale = next(iter(known.values()))
    elif listed is None and "test_list" not in data:
        raise ConfigError("scale=… is missing: the pairs of data.root are found by it.")
    else:
        pairs = [pair for pair, _ in read_sr_list(listed)] if listed else read_list(data["test_list"], data.get("root"))
        scale = find_scale(pairs)
    with keys_below("data"):
        datamodule = PairDataModule(scale=scale, **data)
    if listed:
        datamodule.splits = ListedPairs("pairs", scale, path=listed)
    return datamodule


def _checkpoint_pairs(checkpoints: list[Any]) -> dict[str, str]:
    """Return and print where the test pairs of checkpoints are: name, root and lists. Other settings are not used."""
    from d2csr.data.lists import MAX_BYTES
    from d2csr.distributed import is_rank_zero

    data, *others = map(_pairs_of, checkpoints)
    source = next(key for key in _SOURCES if key in data)
    relevant = (*_LISTS[: _LISTS.index(source) + 1],) if source in _LISTS else ("name", "root", "list_dir")
    if any(other.get(key) != data.get(key) for other in others for key in relevant):
        raise ConfigError("ckpt: the checkpoints name different test pairs; add data.test_list=LIST.")
    if source in _LISTS:
        require_regular_file(Path(data[source]), MAX_BYTES)
    if is_rank_zero():
        print(f"From the checkpoint: data.{source}={printable(data[source])}", flush=True)
    return data


def _pairs_of(checkpoint: Any) -> dict[str, str]:
    data = {key: checkpoint.data.get(key) for key in (*_SOURCES, "name")}
    data = {key: value for key, value in data.items() if value is not None}
    for key, value in data.items():
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_PATH or "\0" in value:
            raise CheckpointError(f"{checkpoint.path}: its data.{key} is not a path; add data.test_list=LIST.")
    if not set(data) & set(_SOURCES):
        raise CheckpointError(f"{checkpoint.path}: does not say which pairs to test on; add data.test_list=LIST.")
    return data
