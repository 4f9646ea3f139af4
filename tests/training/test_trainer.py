"""Atomic checkpoint files, and the strategy of the Trainer."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from pytorch_lightning.profilers import SimpleProfiler
from pytorch_lightning.strategies import DDPStrategy

from d2csr.errors import CheckpointError, ConfigError
from d2csr.files import atomic_write
from d2csr.internals import group_timeout
from d2csr.training import build_trainer
from d2csr.training.ddp import FlatReductionStrategy
from d2csr.training.trainer import AtomicCheckpointIO, remove_partial


def save(folder: Path, name: str, value: int) -> None:
    AtomicCheckpointIO().save_checkpoint({"value": value}, folder / name)


def saved(folder: Path) -> dict[str, int]:
    return {path.name: torch.load(path, weights_only=True)["value"] for path in folder.iterdir()}


def test_the_former_last_checkpoint_is_kept(tmp_path: Path) -> None:
    for value in (1, 2, 3):
        save(tmp_path, "last.ckpt", value)
        save(tmp_path, "best.ckpt", value)
    assert saved(tmp_path) == {"last.ckpt": 3, "previous.ckpt": 2, "best.ckpt": 3}


def test_the_former_last_checkpoint_is_kept_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    for value in (1, 2, 3):
        save(tmp_path, "last.ckpt", value)
    assert saved(tmp_path) == {"last.ckpt": 3, "previous.ckpt": 2}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_full_disk_leaves_the_former_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    save(tmp_path, "last.ckpt", 1)

    def write_half(content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: cannot be written \(.*unchanged"):
        save(tmp_path, "last.ckpt", 2)
    assert saved(tmp_path) == {"last.ckpt": 1}


def test_the_content_is_on_the_disk_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    monkeypatch.setattr("os.fsync", lambda descriptor: done.append("sync"))
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (done.append("rename"), replace(self, target))[1])
    with atomic_write(tmp_path / "file", durable=True) as partial:
        partial.write_text("new")
    assert done == ["sync", "rename", "sync"]


def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    for name in (".last.ckpt.4711.partial", ".previous.ckpt.4711.partial", "last.ckpt", ".hidden"):
        (tmp_path / name).touch()
    remove_partial(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", ".hidden"}


QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("alternating", FlatReductionStrategy), ("joint", DDPStrategy), ("sequential", FlatReductionStrategy)],
)
@pytest.mark.parametrize("strategy", ["ddp", "auto"])
def test_ddp_has_the_time_out_and_reduces_each_network_alone_where_a_backward_reaches_one(mode, kind, strategy) -> None:
    trainer = build_trainer(optimization=mode, strategy=strategy, devices=2, rank_timeout=1.5, **QUIET)
    assert type(trainer.strategy) is kind
    assert group_timeout(trainer) == timedelta(seconds=90)


@pytest.mark.parametrize("devices", [1, "1"])
def test_one_device_needs_no_ddp(devices) -> None:
    assert group_timeout(build_trainer(optimization="joint", devices=devices, **QUIET)) is None


def test_two_devices_as_a_string_need_ddp() -> None:
    trainer = build_trainer(optimization="alternating", devices="2", **QUIET)
    assert type(trainer.strategy) is FlatReductionStrategy


def test_deterministic_training_measures_no_kernels(monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    try:
        build_trainer(optimization="joint", devices=1, deterministic=True, benchmark=True, **QUIET)
        assert torch.backends.cudnn.benchmark is False
        build_trainer(optimization="joint", devices=1, benchmark=True, **QUIET)
        assert torch.backends.cudnn.benchmark is True
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("minutes", [0, -1, "long", float("nan")])
def test_an_impossible_time_out_is_named(minutes) -> None:
    with pytest.raises(ConfigError, match="rank_timeout: must be a number above 0"):
        build_trainer(optimization="joint", rank_timeout=minutes, **QUIET)


def test_a_profiler_of_the_user_is_kept_and_the_default_one_records_nothing() -> None:
    settings = {"optimization": "joint", "accelerator": "cpu", "devices": 1, "logger": False}
    given = SimpleProfiler()
    assert build_trainer(**settings, profiler=given).profiler is given
    default = build_trainer(**settings).profiler
    default.start = None  # not called
    with default.profile("action") as name:
        assert name == "action"
    assert default.summary() == ""
