"""Evaluation and validation with two processes: each image counts once, and the scores equal those of one process."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "eval-x4"

pytestmark = pytest.mark.slow

TWO = ["trainer=ddp_cpu", "trainer.enable_progress_bar=false"]


@pytest.fixture
def lists(tmp_path: Path) -> dict[int, Path]:
    """Lists of one and of three images; the third is the first one in a file of its own."""
    pairs = [[GOLDEN / f"{name}_{kind}.png" for kind in ("LR4", "HR")] for name in ("china", "astronaut")]
    copies = [tmp_path / f"again_{path.name}" for path in pairs[0]]
    for path, copy in zip(pairs[0], copies, strict=True):
        copy.write_bytes(path.read_bytes())
    lines = [f"{lr} {hr}\n" for lr, hr in [*pairs, copies]]
    paths = {count: tmp_path / f"{count}.txt" for count in (1, 3)}
    for count, path in paths.items():
        path.write_text("".join(lines[:count]))
    return paths


def arguments(test_list: Path, folder: str) -> list[str]:
    names = f"data.test_list={test_list}", f"hydra.run.dir={folder}"
    return [f"ckpt={GOLDEN / 'official.pkl'}", "data.num_workers=0", *names]


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert [image["lr"] for image in found["images"]] == [image["lr"] for image in expected["images"]]
    for these, those in zip([found["mean"], *found["images"]], [expected["mean"], *expected["images"]], strict=True):
        assert [these["psnr"], these["ssim"]] == pytest.approx([those["psnr"], those["ssim"]], abs=1e-9)


@pytest.mark.parametrize("count", [1, 3])
def test_two_processes_evaluate_as_one(run, lists: dict[int, Path], tmp_path: Path, count: int) -> None:
    shared = ["save=[sr,panels]", "protocols=[d2csr,y]", "report=true"]
    # One thread in each process: two add up a convolution in another order, and that is not what is asked here.
    alone = run("eval", *arguments(lists[count], "alone"), "trainer=cpu", *shared, OMP_NUM_THREADS="1")
    both = run("eval", *arguments(lists[count], "both"), *TWO, *shared, OMP_NUM_THREADS="1")
    assert (alone.returncode, both.returncode) == (0, 0), both.stderr
    found, expected = metrics(tmp_path / "both"), metrics(tmp_path / "alone")
    assert len(found["images"]) == count
    assert_same(found, expected)
    assert_same(found["protocols"]["y"], expected["protocols"]["y"])
    table = alone.stdout[alone.stdout.index("×4") :].replace("alone", "both")
    assert both.stdout[both.stdout.index("×4") :] == table  # printed once
    for kind in ("sr", "panels", "report/images"):
        names, expected_names = (sorted(p.name for p in (tmp_path / f / kind).iterdir()) for f in ("both", "alone"))
        assert names == expected_names
        assert len(names) == count
    pictures, expected_pictures = (sorted((tmp_path / f).glob("report/images/*/*.webp")) for f in ("both", "alone"))
    assert [path.name for path in pictures] == [path.name for path in expected_pictures]
    page = (tmp_path / "both" / "report" / "index.html").read_text()
    assert page.count("<article") == count
    assert "on the machine that evaluated it" not in page


def test_two_processes_compare_methods_as_one(run, lists: dict[int, Path], tmp_path: Path) -> None:
    known = [f"data.test_list={lists[3]}", "data.num_workers=0"]
    (tmp_path / "sr").mkdir()
    for line in lists[3].read_text().splitlines():
        lr, hr = map(Path, line.split())
        (tmp_path / "sr" / f"{lr.stem}_copy.png").write_bytes(hr.read_bytes())
    alone = run("eval", *known, "sr=sr", "hydra.run.dir=alone", "trainer=cpu", OMP_NUM_THREADS="1")
    both = run("eval", *known, "sr=sr", "hydra.run.dir=both", *TWO, OMP_NUM_THREADS="1")
    assert (alone.returncode, both.returncode) == (0, 0), both.stderr
    found, expected = metrics(tmp_path / "both"), metrics(tmp_path / "alone")
    assert_same(found, expected)
    for these, those in zip(found["images"], expected["images"], strict=True):
        bicubic = these["methods"]["bicubic"]
        assert bicubic == pytest.approx(those["methods"]["bicubic"], abs=1e-9)
    assert found["methods"]["sr"]["ssim"] == 1.0
    (tmp_path / "sr" / "again_china_LR4_copy.png").unlink()
    failed = run("eval", *known, "sr=sr", "hydra.run.dir=failed", *TWO)
    assert failed.returncode == 1
    [message] = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert "1 of 3 pairs do not have exactly one SR image" in message


def test_processes_that_torchrun_started_use_one_folder(python: str, lists: dict[int, Path], tmp_path: Path) -> None:
    # Without a folder for all, each process composes one of its own, of the time when it started.
    command = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    own = ["d2csr.commands.eval", *arguments(lists[3], "out-${oc.env:RANK}"), *TWO, "save=sr"]
    done = subprocess.run([*command, *own], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert len(metrics(tmp_path / "out-0")["images"]) == 3
    assert len(list((tmp_path / "out-0" / "sr").iterdir())) == 3
    assert not (tmp_path / "out-1" / "metrics.json").exists()
    assert not (tmp_path / "out-1" / "sr").exists()


def test_a_broken_image_in_one_process_ends_both(run, lists: dict[int, Path], tmp_path: Path) -> None:
    broken = tmp_path / "again_china_HR.png"
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 0xFF  # what the check of headers and ends does not see
    broken.write_bytes(content)
    _, second, third = lists[3].read_text().splitlines(keepends=True)
    lists[3].write_text(second + third)
    done = run("eval", *arguments(lists[3], "out"), *TWO)
    assert done.returncode == 1
    [message] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"{broken}: a broken image" in message
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("count", [1, 3])
def test_two_processes_validate_as_one_evaluates(run, call, lists: dict[int, Path], tmp_path: Path, count: int) -> None:
    done = run(
        "train",
        *("data=pairs", "scale=4", f"data.train_list={lists[3]}", f"data.val_list={lists[count]}"),
        *("data.batch_size=1", "data.patch_size=24", "data.num_workers=0", "model.features=16", "model.blocks=1"),
        *("trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "hydra.run.dir=run"),
        *TWO,
    )
    assert done.returncode == 0, done.stderr
    [log] = (tmp_path / "run").rglob("metrics.csv")
    with log.open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/psnr"]]
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    call("eval", *arguments(lists[count], "out"), f"ckpt={checkpoint}", "trainer=cpu")
    expected = metrics(tmp_path / "out")
    assert len(rows) == 2
    assert float(rows[-1]["val/psnr"]) == pytest.approx(expected["mean"]["psnr"], abs=1e-6)
    assert float(rows[-1]["val/ssim"]) == pytest.approx(expected["mean"]["ssim"], abs=1e-6)
    for leaf in ("11", "22"):
        psnr = expected["methods"][f"leaf {leaf}"]["psnr"]
        assert float(rows[-1][f"val/psnr_{leaf}"]) == pytest.approx(psnr, abs=1e-6)


# Sends a signal to the process when the first image has been evaluated.
SIGNAL_AFTER_ONE = """
import os
from d2csr.evaluation import all_images

def save(*arguments):
    os.kill(os.getpid(), NUMBER)

all_images._save = save
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_an_evaluation(run, lists: dict[int, Path], tmp_path: Path, number: int, status: int) -> None:
    (tmp_path / "interrupt.py").write_text(SIGNAL_AFTER_ONE.replace("NUMBER", str(int(number))))
    done = run("eval", *arguments(lists[3], "out"), "trainer=cpu", "save=sr", "plugins=[interrupt]")
    assert done.returncode == status
    assert {143: "terminated", 130: "error: interrupted"}[status] in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "metrics.json").exists()
