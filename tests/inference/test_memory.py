from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from d2csr.errors import ConfigError
from d2csr.inference import Inference
from d2csr.inference import plan as memory
from d2csr.models import D2CSR

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 * 10**9),
        ("500MB", 5 * 10**8),
        ("1.5 GiB", 3 * 2**29),
        ("2gib", 2**31),
        (" 750 kb ", 750_000),
        ("1TB", 10**12),
    ],
)
def test_sizes_with_a_unit(text, size) -> None:
    assert memory.parse(text) == size
    assert memory.budget(text, CPU) == size


@pytest.mark.parametrize(
    "text", ["", "4", "GB", "-4GB", "0GB", "0.0000000001KB", "4 GB free", "4XB", "4G B", "1e3MB", 4, None]
)
def test_anything_else_is_refused(text) -> None:
    with pytest.raises(ConfigError, match="memory: must be auto"):
        memory.parse(text)
    with pytest.raises(ConfigError, match="memory: must be auto"):
        Inference(memory=text)


def test_auto_leaves_a_fifth_of_the_free_memory(monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    assert memory.budget("auto", CPU) == 800


def test_the_free_memory_is_plausible() -> None:
    assert 10**8 < memory.available(CPU) < 2**45


def write_group(folder: Path, names: tuple[str, str], limit: str, used: int, cached: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
V2 = ("memory.max", "memory.current")


def test_limits_of_control_groups_version_2(tmp_path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/jobs/42\n")
    root = tmp_path / "cgroup"
    write_group(root, V2, "max", 900)
    write_group(root / "jobs", V2, "5000", 1000)
    write_group(root / "jobs" / "42", V2, "2000", 1500, cached=300)
    assert sorted(memory._free_in_groups(root, own)) == [800, 4000]


def test_limits_of_control_groups_version_1(tmp_path) -> None:
    own = tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/jobs\n4:memory:/jobs\n0::/\n")
    root = tmp_path / "cgroup"
    write_group(root / "memory", V1, str(2**63 - 4096), 900)
    write_group(root / "memory" / "jobs", V1, "3000", 1000)
    assert memory._free_in_groups(root, own) == [2000]


def test_the_tightest_limit_counts(monkeypatch) -> None:
    monkeypatch.setattr(memory, "_free_on_machine", lambda: 500)
    monkeypatch.setattr(memory, "_free_in_groups", lambda: [700, 300])
    assert memory.available(CPU) == 300
    monkeypatch.setattr(memory, "_free_in_groups", list)
    assert memory.available(CPU) == 500


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mode": "blocks"}, "mode: must be one of auto, strips, tiles"),
        ({"tile": 1}, "tile: must be a whole number from 2 up, got 1"),
        ({"tile": True}, "tile: must be a whole number from 2 up, got True"),
        ({"self_ensemble": "yes"}, "self_ensemble: must be true or false, got 'yes'"),
        ({"precision": "64"}, "precision: must be one of 32, tf32, bf16, 16"),
    ],
)
def test_other_settings_out_of_range(setting, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Inference(**setting)


def test_too_little_for_the_smallest_tiles() -> None:
    model = D2CSR(2, 16, [2, 2], 64, {"name": "rcab", "blocks": 1}).eval()
    with pytest.raises(ConfigError, match=r"an image of 40×30 needs 0\.1\d GB even in the smallest tiles"):
        Inference(memory="50MB")(model, torch.rand(1, 3, 30, 40))


def test_memory_that_the_allocator_of_a_gpu_keeps_is_available_except_that_of_cuda_graphs(monkeypatch):
    """Graphs lie in pools of their own; another GPU has its own memory."""
    segments = [
        {"device": 0, "total_size": 50, "allocated_size": 20, "segment_pool_id": (0, 0)},
        {"device": 0, "total_size": 400, "allocated_size": 100, "segment_pool_id": (0, 1)},
        {"device": 1, "total_size": 900, "allocated_size": 0, "segment_pool_id": (0, 0)},
    ]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 450)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 120)
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    monkeypatch.delitem(sys.modules, "torch._inductor.cudagraph_trees", raising=False)
    assert memory.available(torch.device("cuda", 0)) == 1330
    monkeypatch.setitem(sys.modules, "torch._inductor.cudagraph_trees", object())
    assert memory.available(torch.device("cuda", 0)) == 1030
