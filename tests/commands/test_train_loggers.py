"""Logs of ``d2csr-train``, read back from the files of each logger."""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d2csr.models.tree import Tree

TINY = [
    "+experiment=demo",
    "trainer=cpu",
    "model.features=16",
    "model.fusion_features=4",
    "data.patch_size=8",
    "data.batch_size=2",
    "data.patches_per_image=1",
    "data.num_workers=0",
    "trainer.max_epochs=2",
    "trainer.check_val_every_n_epoch=1",
    "trainer.log_every_n_steps=2",
    "hydra.run.dir=run",
]
LEAVES = Tree().leaves
TRAIN = {
    *(f"train/{loss}" for loss in ("reconstruction", "divergence", "fusion")),
    *(f"train/{name}" for name in ("psnr", *(f"psnr_{leaf}" for leaf in LEAVES))),
    *(f"train/{name}" for name in ("distance", "distance_same", "distance_diff", "entropy")),
    *(f"train/{name}" for name in ("lr", "divergence_weight", "samples_per_second", "memory_gb")),
}
VAL = {"val/psnr", "val/ssim", *(f"val/psnr_{leaf}" for leaf in LEAVES)}


def csv_rows(run: Path) -> list[dict[str, float]]:
    with (run / "csv" / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def documented() -> set[str]:
    """The names in the tables of docs/logging.md."""
    lines = (Path(__file__).parents[2] / "docs" / "logging.md").read_text(encoding="utf-8").splitlines()
    cells = [cell for line in lines if line.startswith("| `") for cell in line.split("|")[1].split(",")]
    names = {name for cell in cells if "/" in (name := cell.strip().strip("`"))}
    return {name for name in names if not name.endswith("LEAF")} | {
        name.replace("LEAF", leaf) for name in names if name.endswith("LEAF") for leaf in LEAVES
    }


@pytest.mark.slow
def test_the_csv_file_holds_each_scalar_and_the_docs_name_it(call, tmp_path: Path) -> None:
    finished = call("train", *TINY)
    assert finished.returncode == 0, finished.stderr
    rows = csv_rows(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 1, 3, 3]
    for train, val in (rows[0:2], rows[2:4]):
        assert train.keys() == TRAIN | {"epoch", "step"}
        assert val.keys() == VAL | {"epoch", "step"}
    assert documented() == TRAIN | VAL


@pytest.mark.slow
def test_panels_of_the_first_validation_images_are_written(call, tmp_path: Path) -> None:
    call("train", *TINY)
    [panel] = (tmp_path / "run" / "panels").iterdir()  # the demo validates on one photograph
    assert panel.name == "hopper_LR2.png"
    with Image.open(panel) as sheet:
        # Two columns of methods, one for each leaf, and the colour bar; three rows of 256 pixels with their text.
        assert 6 * 256 < sheet.width < 7 * 256
        assert 3 * 256 < sheet.height < 4 * 256
    call("train", *TINY, "hydra.run.dir=none", "panels.images=0")
    assert not (tmp_path / "none" / "panels").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("panels.crop=8", "panels.crop: must be a whole number from 32 up, got 8"),
        ("panels.zoom=10000000000", "panels.zoom: must be a whole number from 1 to 32, got 10000000000"),
    ],
)
def test_an_impossible_setting_of_panels_is_named(call, argument: str, message: str) -> None:
    finished = call("train", *TINY, argument)
    assert finished.returncode == 1
    assert message in finished.stderr


@pytest.mark.slow
def test_each_logger_holds_the_same_values_and_panels_and_continues_when_resumed(run, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = [*TINY, "logger=[wandb,tensorboard]", "seed=5"]
    finished = run("train", *arguments, WANDB_MODE="offline", WANDB_SILENT="true")
    assert finished.returncode == 0, finished.stderr
    expected = csv_rows(tmp_path / "run")

    [file] = (tmp_path / "run" / "wandb").rglob("run-*.wandb")
    rows = history(file)
    scalars = [row for row in rows if any(name in row for name in ("train/fusion", "val/psnr"))]
    assert len(scalars) == len(expected) == 4
    for row, wanted in zip(scalars, expected, strict=True):
        assert row["trainer/global_step"] == wanted.pop("step")
        assert {name: row[name] for name in wanted} == pytest.approx(wanted)
    images = [row["panels/hopper_LR2/filenames"] for row in rows if "panels/hopper_LR2/filenames" in row]
    assert len(images) == 2
    newest = np.asarray(Image.open(tmp_path / "run" / "panels" / "hopper_LR2.png"))
    assert np.array_equal(np.asarray(Image.open(file.parent / "files" / images[-1][0])), newest)
    assert wandb_settings(file)["seed"] == 5
    assert wandb_settings(file)["trainer"]["max_epochs"] == 2

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == TRAIN | VAL | {"epoch"}
    assert [event.step for event in events.Scalars("train/entropy")] == [1, 3]
    for name in ("train/entropy", "val/psnr"):
        values = [row[name] for row in expected if name in row]
        assert [event.value for event in events.Scalars(name)] == pytest.approx(values)
    assert [image.step for image in events.Images("panels/hopper_LR2")] == [1, 3]
    (tmp_path / "event.png").write_bytes(events.Images("panels/hopper_LR2")[-1].encoded_image_string)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "event.png")), newest)

    again = [*arguments, "resume=run", "trainer.max_epochs=3"]
    finished = run("train", *again, WANDB_MODE="offline", WANDB_SILENT="true")
    assert finished.returncode == 0, finished.stderr
    both = sorted((tmp_path / "run" / "wandb").rglob("run-*.wandb"))
    assert len({path.name for path in both}) == 1  # named by the run's id
    assert len(both) == 2


@pytest.mark.slow
def test_two_processes_log_their_means_and_the_panels_of_both(run, call, tmp_path: Path) -> None:
    lines = []
    for number in range(4):
        Image.effect_noise((24, 32), 60).convert("RGB").save(tmp_path / f"lr{number}.png")
        Image.effect_noise((48, 64), 60).convert("RGB").save(tmp_path / f"hr{number}.png")
        lines.append(f"lr{number}.png hr{number}.png\n")
    (tmp_path / "train.txt").write_text("".join(lines))
    (tmp_path / "val.txt").write_text("".join(lines[:3]))
    own = ["data=pairs", "data.train_list=train.txt", "data.val_list=val.txt", "panels.images=3"]
    own += ["model.optimizer.lr=0", "model.optimizer.weight_decay=0"]
    alone = call("train", *TINY, *own, "hydra.run.dir=alone")
    assert alone.returncode == 0, alone.stderr
    both = run("train", *TINY, *own, "trainer=ddp_cpu", "data.batch_size=1", OMP_NUM_THREADS="1")
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("epoch 2/2, step 4: PSNR") == 1
    names = sorted(path.name for path in (tmp_path / "run" / "panels").iterdir())
    assert names == ["lr0.png", "lr1.png", "lr2.png"]
    for name in names:
        one, other = (np.asarray(Image.open(tmp_path / run / "panels" / name)).astype(int) for run in ("run", "alone"))
        assert np.abs(one - other).max() <= 1
    for row, wanted in zip(csv_rows(tmp_path / "run"), csv_rows(tmp_path / "alone"), strict=True):
        for name in ("train/fusion", "train/reconstruction", "train/psnr_21", "train/entropy", "val/psnr"):
            assert (name in row) == (name in wanted)
            assert row.get(name, 0) == pytest.approx(wanted.get(name, 0), rel=1e-5), name


# What W&B wrote offline: records of Protocol Buffers in a log of LevelDB's format.

_BLOCK, _HEADER, _START = 32768, 7, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def history(path: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics that a ``run-*.wandb`` file holds."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in _records(path)
        if record.WhichOneof("record_type") == "history"
    ]


def wandb_settings(path: Path) -> dict[str, Any]:
    """Return the run's configuration."""
    found = {}
    for record in _records(path):
        kind = record.WhichOneof("record_type")
        config = record.run.config if kind == "run" else record.config if kind == "config" else None
        for item in config.update if config else ():
            found[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return found


def _records(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    for content in _contents(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        yield record


def _contents(log: bytes) -> Iterator[bytes]:
    assert log[:4] == b":W&B"
    position, content = _START, b""
    while position + _HEADER <= len(log):
        if _BLOCK - position % _BLOCK < _HEADER:  # what is left of a block is too short for a header
            position += _BLOCK - position % _BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", log[position : position + _HEADER])
        part = log[position + _HEADER : position + _HEADER + length]
        position += _HEADER + length
        content = part if kind in (_FULL, _FIRST) else content + part
        if kind in (_FULL, _LAST):
            yield content
