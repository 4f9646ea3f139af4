"""``d2csr-lists``, and training with its lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from d2csr.data.lists import read_list


def test_lists_of_a_data_set_are_written_and_counted(call, tmp_path: Path) -> None:
    for split, count in (("Train", 3), ("Test", 2)):
        folder = tmp_path / "RealSR(V3)" / "Canon" / split / "2"
        folder.mkdir(parents=True)
        for number in range(1, count + 1):
            Image.new("RGB", (16, 12)).save(folder / f"Canon_{number:03d}_HR.png")
            Image.new("RGB", (8, 6)).save(folder / f"Canon_{number:03d}_LR2.png")
    finished = call("lists", "dataset=realsr", 'root="RealSR(V3)"', "scale=2", "output=my_lists")
    assert finished.returncode == 0, finished.stderr
    assert "realsr_x2_train.txt: 3 train pairs" in finished.stdout
    pairs = read_list(tmp_path / "my_lists" / "realsr_x2_test.txt")
    assert [pair.hr.name for pair in pairs] == ["Canon_001_HR.png", "Canon_002_HR.png"]
    assert all(pair.lr.is_absolute() for pair in pairs)


def test_an_unknown_data_set_and_a_missing_folder_are_named(call) -> None:
    unknown = call("lists", "dataset=div2k", "root=.")
    assert unknown.returncode == 1
    assert "choose one of realsr, drealsr, d2crealsr, pairs" in unknown.stderr
    missing = call("lists", "dataset=realsr", "root=nowhere")
    assert missing.returncode == 1
    assert "nowhere: no such folder" in missing.stderr


def drealsr(root: Path) -> None:
    """Write a folder in DRealSR's layout: training patches of six scenes, and a test image."""
    for split, names in (("Train", [f"sony_{s}_x2_{p}" for s in range(6) for p in (1, 2, 3)]), ("Test", ["sony_9_x2"])):
        for name in names:
            for kind, size, image in (("HR", (32, 32), name), ("LR", (16, 16), name.replace("_x2", "_x1"))):
                path = root / f"{split}_x2" / f"{split.lower()}_{kind}" / f"{image}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.effect_noise(size, 40).convert("RGB").save(path)


TINY = [
    *("trainer=cpu", "scale=2", "model.features=16", "model.groups=1", "model.blocks=1", "data.patch_size=8"),
    *("trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "trainer.enable_progress_bar=false"),
    *("data.num_workers=0", "callbacks.panels.images=0", "data=drealsr", "hydra.run.dir=run"),
]


@pytest.mark.slow
def test_a_validation_list_is_held_out_by_scene_and_used(call, tmp_path: Path) -> None:
    drealsr(tmp_path / "DRealSR")
    finished = call("lists", "dataset=drealsr", "root=DRealSR", "scale=2", "val=0.3", "seed=1")
    assert finished.returncode == 0, finished.stderr
    counts = {"train": 12, "val": 6, "test": 1}
    for split, count in counts.items():
        assert f"drealsr_x2_{split}.txt: {count} {split} pairs" in finished.stdout
    scenes = {
        split: {pair.hr.stem.split("_")[1] for pair in read_list(tmp_path / "lists" / f"drealsr_x2_{split}.txt")}
        for split in counts
    }
    assert len(scenes["val"]) == 2
    assert not scenes["train"] & scenes["val"]

    trained = call("train", *TINY)
    assert trained.returncode == 0, trained.stderr
    assert "Validating on the test images" not in trained.stdout + trained.stderr
    evaluated = call("eval", "ckpt=run", "trainer=cpu", "data.num_workers=0")
    assert "selected by its PSNR" not in evaluated.stdout
    own = call("eval", "ckpt=run", "trainer=cpu", "data.num_workers=0", "data.test_list=lists/drealsr_x2_val.txt")
    assert "selected by its PSNR on these images" in own.stdout

    again = call("lists", "dataset=drealsr", "root=DRealSR", "scale=2")
    assert "drealsr_x2_val.txt: of an earlier call" in again.stdout


@pytest.mark.slow
def test_without_validation_pairs_training_and_evaluation_say_so(call, tmp_path: Path) -> None:
    drealsr(tmp_path / "DRealSR")
    trained = call("train", *TINY, "data.root=DRealSR")
    assert trained.returncode == 0, trained.stderr
    assert f"Validating on the test images, {tmp_path}/DRealSR (test images)" in trained.stdout
    assert "data.val_share=0.05 holds out validation pairs" in trained.stdout
    note = "selected by its PSNR on these images"
    evaluation = ["trainer=cpu", "data.num_workers=0"]
    assert note in call("eval", "ckpt=run", *evaluation).stdout
    assert note not in call("eval", "ckpt=run/checkpoints/last.ckpt", *evaluation).stdout
    assert call("convert", "source=run", "output=x2.ckpt").returncode == 0
    assert note in call("eval", "ckpt=x2.ckpt", *evaluation).stdout
    assert note in call("eval", "ckpt=run", "data.root=DRealSR", "data.name=drealsr", *evaluation).stdout

    held_out = call("train", *TINY, "data.root=DRealSR", "data.val_share=0.3")
    assert held_out.returncode == 0, held_out.stderr
    assert "Validating on the test images" not in held_out.stdout
    assert note not in call("eval", "ckpt=run", *evaluation).stdout


@pytest.mark.slow
def test_impossible_shares_are_named(call, tmp_path: Path) -> None:
    drealsr(tmp_path / "DRealSR")
    lists = ["dataset=drealsr", "root=DRealSR", "scale=2"]
    assert "error: val: must be a number above 0 and below 1, got 2." in call("lists", *lists, "val=2").stderr
    assert "error: scene: '(' is not a regular expression" in call("lists", *lists, "val=0.5", "scene=(").stderr
    refused = call("train", *TINY, "data.val_share=0.3", "data.train_list=a.txt")
    assert refused.returncode == 1
    (tmp_path / "a.txt").write_text("a b\n")
    refused = call("train", *TINY, "data.val_share=0.3", "data.train_list=a.txt")
    assert "error: data.val_share: needs data.root without lists" in refused.stderr
