from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2csr.checks import SCALES
from d2csr.data.lists import read_list
from d2csr.demo import demo_pairs as pairs
from d2csr.demo.demo_pairs import PHOTOS, read_photo, write_pairs
from d2csr.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def small_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a corner of each photograph: these tests are about files."""
    monkeypatch.setattr(pairs, "read_photo", lambda name: read_photo(name)[:67, :75])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("scale", SCALES)
def test_the_lists_name_pairs_that_fit(tmp_path: Path, scale: int) -> None:
    lists = write_pairs(tmp_path, scale)
    assert list(lists) == list(PHOTOS)
    for split, path in lists.items():
        assert path == tmp_path / f"demo_x{scale}_{split}.txt"
        found = read_list(path)
        place = tmp_path / f"x{scale}" / split
        assert [pair.hr for pair in found] == [place / f"{name}_HR.png" for name in PHOTOS[split]]
        assert [pair.lr for pair in found] == [place / f"{name}_LR{scale}.png" for name in PHOTOS[split]]
        for pair in found:
            with Image.open(pair.lr) as lr, Image.open(pair.hr) as hr:
                assert lr.mode == hr.mode == "RGB"
                assert lr.size == (75 // scale, 67 // scale)
                assert hr.size == (lr.width * scale, lr.height * scale)


def test_the_hr_image_is_the_photograph(tmp_path: Path) -> None:
    write_pairs(tmp_path, 4)
    with Image.open(tmp_path / "x4" / "test" / "china_HR.png") as image:
        np.testing.assert_array_equal(np.asarray(image), read_photo("china")[:64, :72])


def test_files_are_reproducible_and_none_is_left_over(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a", 2)
    write_pairs(tmp_path / "b", 2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(contents(tmp_path / "a")) == 2 * 9 + 3 + 1  # and what they were made with


def test_the_folder_can_be_moved(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a", 2)
    (tmp_path / "a").rename(tmp_path / "b")
    assert all(pair.lr.is_file() for pair in read_list(tmp_path / "b" / "demo_x2_train.txt"))


def test_a_second_call_writes_nothing(tmp_path: Path) -> None:
    first = write_pairs(tmp_path, 2)
    before = times(tmp_path)
    assert write_pairs(tmp_path, 2) == first
    assert times(tmp_path) == before


def test_another_scale_does_not_change_the_first(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    before = contents(tmp_path)
    write_pairs(tmp_path, 4)
    assert {name: content for name, content in contents(tmp_path).items() if "x2" in name} == before


@pytest.mark.parametrize("lost", ["demo_x2_val.txt", "x2/test/astronaut_LR2.png", "x2/made_with.txt"])
def test_deleted_files_are_made_again(tmp_path: Path, lost: str) -> None:
    write_pairs(tmp_path, 2)
    before = contents(tmp_path)
    (tmp_path / lost).unlink()
    write_pairs(tmp_path, 2)
    assert contents(tmp_path) == before


def test_another_version_of_the_package_writes_the_pairs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pairs(tmp_path, 2)
    lr = tmp_path / "x2" / "train" / "coffee_LR2.png"
    lr.write_bytes(b"of an earlier degradation")
    write_pairs(tmp_path, 2)
    assert lr.read_bytes() == b"of an earlier degradation"
    monkeypatch.setattr(pairs, "__version__", "99.0")
    write_pairs(tmp_path, 2)
    assert lr.read_bytes() != b"of an earlier degradation"


def test_each_photograph_has_its_own_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "read_photo", lambda name: np.full((64, 64, 3), 128, np.uint8))
    write_pairs(tmp_path, 2)
    assert len({path.read_bytes() for path in tmp_path.rglob("*_LR2.png")}) == 9


def test_an_interrupted_call_leaves_no_partial_file_and_no_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path, text: str, **options: object) -> None:
        path.write_bytes(b"half a li")
        raise KeyboardInterrupt

    write_pairs(tmp_path, 2)
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", interrupted)
        patch.setattr(pairs, "__version__", "99.0")
        with pytest.raises(KeyboardInterrupt):
            write_pairs(tmp_path, 2)
    assert set(contents(tmp_path)) == set(before) - {str(Path("x2", "made_with.txt"))}
    assert len(read_list(tmp_path / "demo_x2_train.txt")) == len(PHOTOS["train"])
    write_pairs(tmp_path, 2)
    assert contents(tmp_path) == before


def test_several_callers_at_once(tmp_path: Path) -> None:
    write_pairs(tmp_path / "alone", 4)
    failures: list[BaseException] = []
    stop = threading.Event()

    def call() -> None:
        try:
            found = read_list(write_pairs(tmp_path / "shared", 4)["test"])
            while not stop.is_set():  # what a call promised stays whole while others are still writing
                for pair in found:
                    with Image.open(pair.lr) as image:
                        image.load()
        except BaseException as error:
            failures.append(error)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    stop.wait(0.5)
    stop.set()
    for caller in callers:
        caller.join()
    assert failures == []
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


def test_an_unsupported_scale_is_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2, 3, 4, 8"):
        write_pairs(tmp_path / "new", 5)
    assert not (tmp_path / "new").exists()


def test_an_impossible_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="file"):
        write_pairs(tmp_path / "file", 2)
