"""Pairs from photographs: files, halving, windows, splits, sources, and wrong input."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from d2csr.data.lists import read_list
from d2csr.errors import DataError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 1999, Somebody Else
License: Expat

Files: nature/*
       abstract/A.png
Copyright: 2008, Jane Doe <jane@example.org>
           2009, "jd"
License: GPL-2+
Comment: Files: nature/*

Files: 16.04/* 20.04/*
Copyright: Aitzol, 2018
License: CC-BY-SA-4.0

License: GPL-2+
 The text of the licence.
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import photographs
    return photographs


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_packages(root: Path, script: ModuleType) -> None:
    """Write small images under the names of the photographs, and their copyright files."""
    debian = sys.modules[script.installed.__module__]
    for package, (folder, _) in debian.PACKAGES.items():
        (root / "usr/share/doc" / package).mkdir(parents=True)
        (root / "usr/share/doc" / package / "copyright").write_text(COPYRIGHT)
        for split in debian.FILES.values():
            for name in split.get(package, ()):
                (root / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise(60, 70, len(name))).save(root / folder / name)


def run(monkeypatch: pytest.MonkeyPatch, script: ModuleType, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["photographs.py", *map(str, arguments), "--processes", "1"])
    script.main()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, output = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("output")
    write_packages(root, script)
    with pytest.MonkeyPatch.context() as patch:
        run(patch, script, output, "--root", root, "--scale", 2, 4)
    return output


def test_each_photograph_is_in_one_split(written: Path) -> None:
    splits = {}
    for split, count in (("train", 17), ("val", 4), ("test", 6)):
        pairs = read_list(written / f"photographs_x4_{split}.txt")
        assert len(pairs) == count  # one window each, of 24 of the 30 rows that halving leaves
        splits[split] = {pair.hr.stem.split("_1_HR")[0] for pair in pairs}
    assert len(set().union(*splits.values())) == 27
    assert "life" in splits["test"]


def test_lr_is_the_degraded_hr_and_hr_is_the_same_at_every_scale(written: Path) -> None:
    from d2csr.data.degradation import degrade

    twice, four = (read_list(written / f"photographs_x{scale}_val.txt")[0] for scale in (2, 4))
    hr = np.asarray(Image.open(four.hr))
    assert hr.shape == (24, 24, 3)
    np.testing.assert_array_equal(np.asarray(Image.open(twice.hr)), hr)
    for pair, scale in ((twice, 2), (four, 4)):
        lr = np.asarray(Image.open(pair.lr), int)
        assert lr.shape == (24 // scale, 24 // scale, 3)
        assert 0 < np.abs(lr - degrade(hr, scale, seed=0)).mean() < 25  # another seed, the same image


def test_sources_state_author_licence_and_hash(written: Path) -> None:
    text = (written / "SOURCES.md").read_text()
    [aqua] = [line for line in text.splitlines() if line.startswith("| Aqua |")]
    digest = hashlib.sha256()
    assert aqua.startswith('| Aqua | train | Aqua.jpg | 2008, Jane Doe; 2009, "jd" | GPL-2+ | ')
    assert len(aqua.split("|")[-2].strip()) == 2 * digest.digest_size
    assert "| Kleiber | test | Kleiber_by_Lukas_Baubkus.jpg | Aitzol, 2018 | CC-BY-SA-4.0 |" in text


def test_any_folder_gives_the_same_bytes_each_time(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(5):
        Image.fromarray(noise(210, 200, number)).save(images / f"p{number}.png")
    Image.fromarray(noise(210, 200, 9)).save(images / "p0.jpg")
    (images / "notes.txt").write_text("no image")
    for name in ("a", "b"):
        run(monkeypatch, script, tmp_path / name, "--images", images, "--side", 24, "--train-crops", 3)
    files = contents(tmp_path / "a")
    assert files == contents(tmp_path / "b")
    counts = {split: len(read_list(tmp_path / "a" / f"photographs_x4_{split}.txt")) for split in script.SPLITS}
    assert counts == {"train": 4 * 3, "val": 2, "test": 2}
    assert {"p0_png", "p0_jpg", "p1"} <= {Path(name).name.rsplit("_", 2)[0] for name in files if "HR" in name}
    run(monkeypatch, script, tmp_path / "c", "--images", images, "--side", 24, "--seed", 1)
    hr, lr = "x4/train/p1_1_HR.png", "x4/train/p1_1_LR4.png"
    if hr not in files:
        pytest.fail("p1 should be a training image")
    assert (tmp_path / "c" / hr).read_bytes() == files[hr]
    assert (tmp_path / "c" / lr).read_bytes() != files[lr]


def test_halving_is_the_mean_of_light(script: ModuleType) -> None:
    image = noise(601, 7)  # more than two strips, and an odd row and column
    halved = script.halve(image)
    encoded = image[:600, :6].astype(float) / 255
    light = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    mean = sum(light[row::2, column::2] for row in (0, 1) for column in (0, 1)) / 4
    expected = 255 * np.where(mean <= 0.0031308, mean * 12.92, 1.055 * mean ** (1 / 2.4) - 0.055)
    assert np.abs(halved - expected).max() < 0.501
    checks = np.indices((4, 4)).sum(axis=0) % 2 * 255
    assert (script.halve(np.repeat(checks[..., None], 3, axis=2).astype(np.uint8)) == 188).all()


def test_windows_have_the_most_detail_and_do_not_overlap(script: ModuleType) -> None:
    image = np.full((400, 400, 3), 90, np.uint8)
    image[40:90, 300:350] = noise(50, 50)
    image[304:354, 8:58] = noise(50, 50) // 2
    first, second, third = script.detailed_windows(image, 50, 3)  # of 48 pixels: a multiple of 24
    assert (first, second) == ((slice(40, 88), slice(304, 352)), (slice(304, 352), slice(8, 56)))
    rows, columns = third
    assert (rows.stop - rows.start, columns.stop - columns.start) == (48, 48)
    assert image[first].std() > image[second].std() > image[third].std()


def test_windows_are_as_many_as_fit(script: ModuleType) -> None:
    image = noise(100, 100)
    windows = script.detailed_windows(image, 96, 5)
    assert [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in windows] == [(96, 96)]
    covered = np.zeros((200, 200), int)
    for window in script.detailed_windows(noise(200, 200), 48, 50):
        covered[window] += 1
    assert covered.max() == 1


def test_missing_packages_are_one_message_with_the_command(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_packages(tmp_path, script)
    (tmp_path / "usr/share/backgrounds/life_by_Aitzol_Berasategi.jpg").unlink()
    with pytest.raises(SystemExit, match=r"apt-get install lomiri-wallpapers-16\.04\. Without root"):
        run(monkeypatch, script, tmp_path / "out", "--root", tmp_path)
    (tmp_path / "usr/share/doc/mate-backgrounds/copyright").unlink()
    with pytest.raises(SystemExit, match=r"apt-get install mate-backgrounds lomiri-wallpapers-16\.04\."):
        run(monkeypatch, script, tmp_path / "out", "--root", tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_photograph_without_a_licence_is_not_used(script: ModuleType, tmp_path: Path) -> None:
    write_packages(tmp_path, script)
    stated = tmp_path / "usr/share/doc/mate-backgrounds/copyright"
    stated.write_text("Files: abstract/*\nCopyright: 2008, Jane Doe\nLicense: GPL-2+\n")
    with pytest.raises(DataError, match=r"mate-backgrounds/copyright: states no author and licence of nature/Aqua"):
        script.installed(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere", None, r"nowhere: no such folder of images"),
        ("few", [noise(60, 60)] * 2, r"few: holds 2 images; at least 3 are needed"),
        ("small", [noise(60, 60), noise(60, 47), noise(60, 60)], r"1\.png: 23×30 pixels after halving"),
        ("broken", [noise(60, 60), noise(60, 60), b"\x89PNG\r\n\x1a\n"], r"2\.png: .*not an image that can be read"),
    ],
)
def test_an_unusable_folder_is_one_message(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: list | None, message: str
) -> None:
    for number, image in enumerate(content or ()):
        path = tmp_path / name / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            Image.fromarray(image).save(path)
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, script, tmp_path / "out", "--images", tmp_path / name)


@pytest.mark.slow
def test_impossible_numbers_are_refused_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "photographs.py"), str(tmp_path / "out"), "--side", "23"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--side: must be at least 24 pixels, got 23" in done.stderr
    assert "Traceback" not in done.stderr
