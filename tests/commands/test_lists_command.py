"""``d2csr-lists`` writes lists that training reads."""

from __future__ import annotations

from pathlib import Path

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
