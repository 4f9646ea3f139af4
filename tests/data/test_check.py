from __future__ import annotations

from pathlib import Path

import pytest

from d2csr.data.check import check_pairs, raise_or_skip
from d2csr.data.lists import ImagePair
from d2csr.data.sources import common_size
from d2csr.errors import DataError


@pytest.fixture
def check(tmp_path):
    """Check pairs, and return the numbers of the good ones, and what is wrong with the others."""

    def run(pairs, scale, patch_size=1):
        good, problems = check_pairs(pairs, scale, patch_size, tmp_path / "cache")
        assert sorted([*good, *problems]) == list(range(len(pairs)))
        return list(good), [problems[number] for number in sorted(problems)]

    return run


def refusal(problems, total):
    with pytest.raises(DataError) as error:
        raise_or_skip(problems, total, "raise")
    return str(error.value)


def test_good_pairs_pass(pair, check):
    assert check([pair(1, (10, 8), (40, 32)), pair(2, (7, 9), (28, 36))], 4, patch_size=7) == ([0, 1], [])


@pytest.mark.parametrize("hr", [(40, 32), (43, 35), (37, 29), (39, 33), (41, 31)])
def test_hr_need_not_be_an_exact_multiple(pair, hr, check):
    assert check([pair(1, (10, 8), hr)], 4) == ([0], [])


def test_all_bad_pairs_are_reported_together_with_their_lines(pair, check):
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
    good, problems = check(pairs, 2, patch_size=6)
    assert good == [0]
    assert [problem.split(": ")[0] for problem in problems] == [f"list.txt:{number}" for number in range(2, 7)]
    assert "LR is as large as HR, as in RealSR V1 and V2; use V3" in problems[0]
    assert "lr3.png is 8×10 and" in problems[1]
    assert "hr3.png is 32×40 (width×height): these do not fit the scale 2, but 4×4; correct the list, " in problems[1]
    assert problems[1].endswith(", train with scale=4, or evaluate a checkpoint of scale 4")
    assert problems[2] == "list.txt:4: /none/lr.png: no such file."
    assert problems[3].endswith("hr5.png: not an image that can be read")
    assert problems[4].endswith("smaller than the LR patch of 6, 12 in HR; data.patch_size=5 fits all")


def test_an_image_of_several_pairs_is_named_with_each(pair, check):
    first, second = pair(1, (10, 8), (20, 16)), pair(2, (10, 8), (20, 16))
    first.hr.write_text("no image")
    good, problems = check([first, second, ImagePair(second.lr, first.hr, "list.txt:3")], 2)
    assert good == [1]
    assert [problem.split(": ")[0] for problem in problems] == ["list.txt:1", "list.txt:3"]


def test_no_problem_raises_no_error(caplog):
    raise_or_skip({}, 3, "raise")
    raise_or_skip({}, 3, "skip")
    assert caplog.text == ""


def test_the_message_holds_all_problems_and_the_remedy():
    lines = refusal({4: "list.txt:5: bad", 1: "list.txt:2: bad"}, 6).splitlines()
    assert lines[:3] == ["2 of 6 pairs cannot be used:", "list.txt:2: bad", "list.txt:5: bad"]
    assert "data.on_error=skip" in lines[3]


def test_the_message_names_at_most_20_pairs():
    lines = refusal({number: f"list.txt:{number}: bad" for number in range(50)}, 60).splitlines()
    assert lines[0] == "50 of 60 pairs cannot be used:"
    assert len(lines) == 23
    assert lines[-2] == "... and 30 more"


def test_the_log_counts_and_names_all_skipped_pairs(caplog):
    raise_or_skip({number: f"list.txt:{number}: bad" for number in range(50)}, 60, "skip")
    lines = caplog.text.splitlines()
    assert "50 of 60 pairs are skipped (data.on_error=skip):" in lines[0]
    assert lines[1:] == [f"list.txt:{number}: bad" for number in range(50)]


def test_only_rank_zero_writes_the_log(caplog, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    raise_or_skip({0: "list.txt:1: bad"}, 2, "skip")
    assert caplog.text == ""


def test_skipping_everything_is_an_error():
    with pytest.raises(DataError, match=r"2 of 2 pairs cannot be used:\nlist.txt:1: bad\nlist.txt:2: bad$"):
        raise_or_skip({0: "list.txt:1: bad", 1: "list.txt:2: bad"}, 2, "skip")


@pytest.mark.parametrize(("lr", "hr"), [((10, 8), (40, 24)), ((10, 8), (48, 32)), ((10, 8), (32, 32))])
def test_one_side_that_does_not_fit_is_enough(pair, lr, hr, check):
    assert "do not fit the scale 4" in check([pair(1, lr, hr)], 4)[1][0]


def test_the_patch_must_fit_into_the_common_area(pair, check):
    ragged = pair(1, (10, 10), (39, 40))
    assert check([ragged], 4, patch_size=9) == ([0], [])
    assert "smaller than the LR patch of 10" in check([ragged], 4, patch_size=10)[1][0]


def test_common_size():
    assert common_size((10, 8), (40, 32), 4) == (10, 8)
    assert common_size((10, 8), (43, 31), 4) == (10, 7)


def test_sizes_that_fit_no_scale_have_no_advice_to_use_one(pair, check):
    _, [problem] = check([pair(1, (10, 10), (60, 60))], 4)
    assert problem.endswith("these do not fit the scale 4, but 6×6; correct the list")
