from __future__ import annotations

from pathlib import Path

import pytest

from d2csr.data.check import check_pairs, common_size
from d2csr.data.lists import ImagePair
from d2csr.errors import DataError


def problem(pairs, scale, patch_size=1):
    with pytest.raises(DataError) as error:
        check_pairs(pairs, scale, patch_size)
    return str(error.value)


def test_good_pairs_pass(pair):
    check_pairs([pair(1, (10, 8), (40, 32)), pair(2, (7, 9), (28, 36))], 4, patch_size=7)


@pytest.mark.parametrize("hr", [(40, 32), (43, 35), (37, 29), (39, 33), (41, 31)])
def test_hr_need_not_be_an_exact_multiple(pair, hr):
    check_pairs([pair(1, (10, 8), hr)], 4)


def test_all_bad_pairs_are_reported_together_with_their_lines(pair, tmp_path):
    broken = pair(5, (10, 8), (20, 16))
    broken.hr.write_text("no image")
    pairs = [
        pair(1, (10, 8), (20, 16)),
        pair(2, (20, 16), (20, 16)),
        pair(3, (10, 8), (40, 32)),
        ImagePair(Path("/none/lr.png"), Path("/none/hr.png"), "list.txt:4"),
        broken,
        pair(6, (5, 8), (10, 16)),
    ]
    lines = problem(pairs, 2, patch_size=6).splitlines()
    assert lines[0] == "5 of 6 pairs cannot be used:"
    assert [line.split(": ")[0] for line in lines[1:]] == [f"list.txt:{number}" for number in range(2, 7)]
    assert "LR is as large as HR, as in RealSR V1 and V2; use V3" in lines[1]
    assert "lr3.png is 8×10 and" in lines[2]
    assert "hr3.png is 32×40 (width×height): these do not fit the scale 2; set scale=…" in lines[2]
    assert lines[3] == "list.txt:4: /none/lr.png: no such image"
    assert lines[4].endswith("hr5.png: not an image that can be read")
    assert "smaller than the LR patch of 6; set data.patch_size=5 or less" in lines[5]


def test_a_great_many_bad_pairs_are_summed_up():
    pairs = [ImagePair(Path("/none.png"), Path("/none.png"), f"list.txt:{number}") for number in range(50)]
    lines = problem(pairs, 2).splitlines()
    assert lines[0] == "50 of 50 pairs cannot be used:"
    assert len(lines) == 22
    assert lines[-1] == "... and 30 more"


@pytest.mark.parametrize(("lr", "hr"), [((10, 8), (40, 24)), ((10, 8), (48, 32)), ((10, 8), (32, 32))])
def test_one_side_that_does_not_fit_is_enough(pair, lr, hr):
    assert "do not fit the scale 4" in problem([pair(1, lr, hr)], 4)


def test_the_patch_must_fit_into_what_lr_and_hr_have_in_common(pair):
    ragged = pair(1, (10, 10), (39, 40))
    check_pairs([ragged], 4, patch_size=9)
    assert "set data.patch_size=9 or less" in problem([ragged], 4, patch_size=10)


def test_the_common_size_is_what_both_cover():
    assert common_size((10, 8), (40, 32), 4) == (10, 8)
    assert common_size((10, 8), (43, 31), 4) == (10, 7)
