"""Checkpoint files are whole whatever happens while they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from d2csr.errors import CheckpointError
from d2csr.files import atomic_write
from d2csr.training.trainer import AtomicCheckpointIO, remove_partial


def save(folder: Path, name: str, value: int) -> None:
    AtomicCheckpointIO().save_checkpoint({"value": value}, folder / name)


def saved(folder: Path) -> dict[str, int]:
    return {path.name: torch.load(path, weights_only=True)["value"] for path in folder.iterdir()}


def test_of_the_last_checkpoint_the_former_one_stays(tmp_path: Path) -> None:
    for value in (1, 2, 3):
        save(tmp_path, "last.ckpt", value)
        save(tmp_path, "best.ckpt", value)
    assert saved(tmp_path) == {"last.ckpt": 3, "previous.ckpt": 2, "best.ckpt": 3}


def test_without_hard_links_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    for value in (1, 2, 3):
        save(tmp_path, "last.ckpt", value)
    assert saved(tmp_path) == {"last.ckpt": 3, "previous.ckpt": 2}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    save(tmp_path, "last.ckpt", 1)

    def write_half(content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: cannot be written \(.*untouched"):
        save(tmp_path, "last.ckpt", 2)
    assert saved(tmp_path) == {"last.ckpt": 1}


def test_the_content_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    monkeypatch.setattr("os.fsync", lambda descriptor: done.append("sync"))
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (done.append("rename"), replace(self, target))[1])
    with atomic_write(tmp_path / "file") as partial:
        partial.write_text("new")
    assert done == ["sync", "rename", "sync"]


def test_what_a_killed_process_left_is_cleared_up(tmp_path: Path) -> None:
    for name in (".last.ckpt.4711.partial", ".previous.ckpt.4711.partial", "last.ckpt", ".hidden"):
        (tmp_path / name).touch()
    remove_partial(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", ".hidden"}
