"""Checkpoints of a comparison: names, hashes, runs that differ by their seed alone, and notes on their selection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from d2csr.checkpoints import Checkpoint
from d2csr.checkpoints.archive import read_archive
from d2csr.data.splits import Splits
from d2csr.errors import CheckpointError, ConfigError
from d2csr.evaluation.report import BICUBIC, FUSION, MEAN, SeedGroup
from d2csr.files import file_hash

# Settings of a run that change none of its results, or say where its files are.
_IRRELEVANT = {"seed", "logger", "checkpoint", "root", "list_dir", "cache", "cache_dir", "num_workers", "threads"}
_LISTS = {"train_list", "val_list", "test_list"}

_Run = tuple[str, str, int]  # its name, the name of the file, the seed


def method_names(checkpoints: Sequence[Path], sr: Sequence[Path]) -> list[str]:
    """Return the names of checkpoints and SR images in a report; a single checkpoint is called ``fusion``."""
    reserved = (BICUBIC, MEAN, FUSION)
    if len(checkpoints) == 1:
        return [FUSION, *unique_names(sr, reserved)]
    return unique_names([*checkpoints, *sr], reserved)


def unique_names(paths: Sequence[Path], taken: Collection[str] = ()) -> list[str]:
    """Return a short name for each path, all different: the run folder or file, with the file's stem, or the path.

    Paths are checkpoints, or folders and lists of SR images. Names in ``taken`` are used already.

    Raises:
        ConfigError: a path is there twice.
    """
    named = [_run_name(path) for path in paths]
    short = [run or (path.stem if path.is_file() else path.name) for run, path in zip(named, paths, strict=True)]
    longer = [f"{run}/{path.stem}" if run else str(path) for run, path in zip(named, paths, strict=True)]
    full = [str(path.absolute()) for path in paths]
    for names in (short, longer, full):
        if "" not in names and len({*names, *taken}) == len(names) + len(taken):
            return names
    twice = next(name for name in full if full.count(name) > 1)
    raise ConfigError(f"ckpt, sr: {twice} is named twice.")


def seed_groups(checkpoints: Mapping[str, Path]) -> list[SeedGroup]:
    """Return the checkpoints of training runs, by name, whose settings differ by their seed alone.

    The folders of data and caches and the logger may differ too; of lists only the file names are compared. If a seed
    occurs twice, as in the best and the last checkpoint of a run, only files of the same name are grouped.
    """
    alike: dict[str, list[_Run]] = defaultdict(list)
    for name, path in checkpoints.items() if len(checkpoints) > 1 else ():
        settings = _run_settings(path)
        if isinstance(settings.get("seed"), int):
            alike[repr(_relevant(settings))].append((name, path.name, settings["seed"]))
    groups = []
    for runs in alike.values():
        files = dict.fromkeys(file for _, file, _ in runs)
        for part in [runs] if _differ(runs) else [[run for run in runs if run[1] == file] for file in files]:
            if _differ(part):
                groups.append(SeedGroup(tuple(name for name, *_ in part), tuple(seed for *_, seed in part)))
    return groups


def describe(checkpoints: Mapping[str, Path], sr: Mapping[str, Path]) -> dict[str, Any]:
    """Return the files of the methods as plain values, those of checkpoints with their SHA-256."""
    return {
        "checkpoints": [{"method": n, "path": str(p), "sha256": file_hash(p)} for n, p in checkpoints.items()],
        "sr": [{"method": name, "path": str(path)} for name, path in sr.items()],
    }


def selection_notes(checkpoints: Iterable[Checkpoint], splits: Splits) -> list[str]:
    """Return a note for each checkpoint that is the best one of its run on the test images of ``splits``."""
    return [
        f"{checkpoint.path}: selected by its PSNR on these images, so its scores are too high. The paper's protocol "
        "reports last.ckpt."
        for checkpoint in checkpoints
        if checkpoint.data.get("selected_on") == splits.source("test")
    ]


def _run_name(path: Path) -> str:
    """Return the name of the run folder of a checkpoint, empty for other files."""
    folder = path.absolute().parent
    return folder.parent.name if folder.name == "checkpoints" else ""


def _run_settings(path: Path) -> dict[str, Any]:
    """Return the settings of the run that wrote a checkpoint, empty for exports and official pickles."""
    try:
        content = read_archive(path, ("settings",))
    except CheckpointError:
        return {}
    settings = content.get("settings") if isinstance(content, dict) else None
    return settings if isinstance(settings, dict) else {}


def _relevant(value: Any) -> Any:
    """Return settings, sorted, without those that change no result, and with the names of lists without folders."""
    if not isinstance(value, dict):
        return value
    kept = {str(key): _relevant(item) for key, item in value.items() if key not in _IRRELEVANT}
    return {
        key: Path(item).name if key in _LISTS and isinstance(item, str) else item for key, item in sorted(kept.items())
    }


def _differ(runs: Iterable[_Run]) -> bool:
    """Return whether there are several runs, all of different seeds."""
    seeds = [seed for *_, seed in runs]
    return len(seeds) > 1 and len(set(seeds)) == len(seeds)
