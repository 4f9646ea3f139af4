from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2csr.data.lists import ImagePair
from d2csr.errors import DataError
from d2csr.evaluation.sr_images import find_scale, find_sr_images, read_sr_image

SIZE = (5, 4)  # width and height of LR


def save(path: Path, scale: int = 1, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (scale * SIZE[0], scale * SIZE[1]), (level, level, level)).save(path)
    return path


@pytest.fixture
def find(tmp_path):
    """Find the SR images among files, for pairs of the names of LR and HR; return the name found for each."""

    def run(names, files, source="sr"):
        pairs = [
            ImagePair(save(tmp_path / "lr" / f"{lr}.png"), save(tmp_path / "hr" / f"{hr}.png", 2), f"list.txt:{n}")
            for n, (lr, hr) in enumerate(names, start=1)
        ]
        for file in files:
            save(tmp_path / "sr" / file, 2)
        return [path.name for path in find_sr_images(tmp_path / source, pairs, 2, tmp_path / "cache")]

    return run


@pytest.mark.parametrize(
    ("lr", "hr", "file"),
    [
        ("0001_LR4", "0001_HR", "0001_LR4.png"),
        ("0001_LR4", "0001_HR", "0001_HR.bmp"),
        ("0001_LR4", "0001_HR", "0001.png"),
        ("0001_LR4", "0001_HR", "0001_LR4_SwinIR.png"),
        ("0001_LR4", "0001_HR", "0001_x4.png"),
        ("0001x4", "0001", "0001x4_out.png"),
        ("0001", "0001", "0001x2.jpg"),
        ("Canon_001_LR4", "Canon_001_HR", "Canon_001_x4_HAT-L.PNG"),
        ("a b", "a b", "a b (1).png"),
    ],
)
def test_an_image_has_the_name_of_lr_or_hr_and_any_suffix(find, lr, hr, file):
    assert find([(lr, hr)], [file]) == [file]


def test_the_longest_name_wins(find):
    names = [("img_1", "img_1"), ("img_1_2", "img_1_2"), ("img_12", "img_12")]
    files = ["img_1_out.png", "img_1_2_out.png", "img_12_out.png"]
    assert find(names, files) == files


def test_an_exact_name_wins_over_a_suffix_and_other_files_are_ignored(find, tmp_path):
    save(tmp_path / "sr" / "deeper" / "a_1.png")
    (tmp_path / "sr" / "a_scores.txt").touch()
    assert find([("a", "a")], ["a_x2.png", "a.png", "b.png"]) == ["a.png"]


def test_inputs_beside_the_results_are_not_taken_for_them(find, tmp_path):
    files = [save(tmp_path / "lr" / "a_out.png", 2)]
    assert find([("a", "a")], [], source="lr") == [file.name for file in files]


def test_pairs_without_one_image_are_all_named(find):
    with pytest.raises(DataError) as caught:
        find([("a", "a"), ("b", "b"), ("c", "c")], ["a.png", "b_1.png", "b_2.png"])
    message = str(caught.value)
    assert "2 of 3 pairs do not have exactly one SR image of their own" in message
    assert "\nb.png: b_1.png, b_2.png\nc.png: none\n" in message
    assert "LR_path HR_path SR_path" in message


def test_the_same_name_in_two_folders_needs_numbers_or_a_list(tmp_path):
    pairs = [ImagePair(save(tmp_path / one / "x.png"), save(tmp_path / one / "hr" / "x.png", 2)) for one in ("a", "b")]
    shared = save(tmp_path / "sr" / "x.png", 2)
    with pytest.raises(DataError, match=r"x.png: x.png, which fits other pairs too"):
        find_sr_images(tmp_path / "sr", pairs, 2, tmp_path / "cache")
    shared.unlink()
    for number in range(2):
        save(tmp_path / "sr" / f"000{number}_x.png", 2)
    found = find_sr_images(tmp_path / "sr", pairs, 2, tmp_path / "cache")
    assert [path.name for path in found] == ["0000_x.png", "0001_x.png"]  # as save=sr writes them


def test_a_list_of_three_columns_names_the_images(tmp_path):
    pairs = [ImagePair(save(tmp_path / "lr" / f"{n}.png"), save(tmp_path / "hr" / f"{n}.png", 2)) for n in "ab"]
    images = {n: save(tmp_path / "sr" / f"of {n}.png", 2) for n in "ab"}
    (tmp_path / "list.txt").write_text("".join(f"lr/{n}.png\thr/{n}.png\tsr/of {n}.png\n" for n in "ba"))
    assert find_sr_images(tmp_path / "list.txt", pairs, 2, tmp_path / "cache") == list(images.values())
    (tmp_path / "list.txt").write_text("lr/a.png hr/a.png 'sr/of a.png'\n")
    with pytest.raises(DataError, match=r"1 of 2 pairs .*\nb.png: none"):
        find_sr_images(tmp_path / "list.txt", pairs, 2, tmp_path / "cache")
    (tmp_path / "list.txt").write_text("lr/a.png hr/a.png\n")
    with pytest.raises(DataError, match=r"list.txt:1: expected 'LR_path HR_path SR_path', found 2 path"):
        find_sr_images(tmp_path / "list.txt", pairs, 2, tmp_path / "cache")


def test_sizes_are_checked_by_their_headers(find, tmp_path):
    save(tmp_path / "sr" / "a.png", 3)
    (tmp_path / "sr" / "b.png").write_text("no image")
    with pytest.raises(DataError) as caught:
        find([("a", "a"), ("b", "b"), ("c", "c")], ["c.png"])
    assert f"{tmp_path}/sr/a.png is 15×12 and its HR 10×8 (width×height)" in str(caught.value)
    assert f"{tmp_path}/sr/b.png: not an image" in str(caught.value)
    assert "c.png" not in str(caught.value)


def test_an_image_of_the_uncut_size_fits(tmp_path):
    pair = ImagePair(save(tmp_path / "a.png"), tmp_path / "hr.png")
    Image.new("RGB", (11, 9)).save(pair.hr)  # one pixel more than twice LR
    for number, size in enumerate([(11, 9), (10, 8)]):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
        (tmp_path / "list.txt").write_text(f"a.png hr.png {number}.png\n")
        [found] = find_sr_images(tmp_path / "list.txt", [pair], 2, tmp_path / "cache")
        assert read_sr_image(found, 8, 10).shape == (1, 3, 8, 10)


def test_an_image_is_read_as_rgb_and_16_bits_are_scaled(tmp_path):
    Image.fromarray(np.array([[[255, 0, 51]]], dtype=np.uint8)).save(tmp_path / "rgb.png")
    assert read_sr_image(tmp_path / "rgb.png", 1, 1).flatten().tolist() == pytest.approx([1, 0, 0.2])
    Image.fromarray(np.array([[257 * 51]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert read_sr_image(tmp_path / "deep.png", 1, 1).flatten().tolist() == pytest.approx([0.2] * 3)


@pytest.mark.parametrize(("size", "scale"), [((20, 16), 4), ((23, 19), 4), ((15, 12), 3), ((40, 32), 8)])
def test_the_scale_follows_from_the_sizes(tmp_path, size, scale):
    pair = ImagePair(save(tmp_path / "lr.png"), tmp_path / "hr.png")
    Image.new("RGB", size).save(pair.hr)
    assert find_scale([ImagePair(tmp_path / "missing.png", pair.hr), pair]) == scale


def test_impossible_scales_are_named(tmp_path):
    pair = ImagePair(save(tmp_path / "lr.png"), save(tmp_path / "hr.png", 6), "list.txt:1")
    with pytest.raises(DataError, match=r"list.txt:1: .*no scale of 2, 3, 4, 8 fits"):
        find_scale([pair])
    with pytest.raises(DataError, match="no pair can be read"):
        find_scale([ImagePair(tmp_path / "missing.png", pair.hr, "list.txt:1")])
