from __future__ import annotations

import logging
import subprocess

import pytest

from d2csr.data.check import prepare
from d2csr.data.sources import CACHES
from d2csr.errors import DataError

# One of two processes: python -c RANK NUMBER STORE LIST
RANK = """
import sys
from pathlib import Path
import torch.distributed as dist
from d2csr.data.lists import read_list
from d2csr.data.check import prepare
from d2csr.errors import DataError

rank, store, named = sys.argv[1:]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=2)
settings = {"scale": 2, "patch_size": 4, "cache": "disk", "cache_dir": Path(named).parent / "cache"}
kept, source = prepare(lambda: read_list(named), on_error="skip", **settings)
print(*(pair.lr.stem for pair in kept), len(source), source[len(source) - 1][0].shape)
try:
    prepare(lambda: read_list(named), on_error="raise", **settings)
except DataError as error:
    print(str(error).splitlines()[0])
settings["cache_dir"] = Path(named) if rank == "0" else settings["cache_dir"]
try:
    prepare(lambda: read_list(named), on_error="skip", **settings)
except DataError as error:
    print("cannot be written" in str(error))
dist.destroy_process_group()
"""


@pytest.fixture
def pairs(pair):
    """Six pairs at scale 2, the fourth one ragged."""
    return [pair(number, (60, 50), (121, 100) if number == 3 else (120, 100)) for number in range(6)]


@pytest.fixture
def prepared(tmp_path):
    return lambda pairs, **settings: prepare(lambda: pairs, scale=2, cache_dir=tmp_path / "cache", **settings)


def break_pixels(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("cache", CACHES)
def test_good_pairs_all_come_back(cache, pairs, prepared):
    kept, source = prepared(pairs, cache=cache)
    assert kept == pairs
    assert len(source) == 6


@pytest.mark.parametrize("size", [(121, 100), (120, 101), (119, 100)])
def test_rank_zero_counts_cut_pairs_in_one_line(size, pairs, pair, prepared, caplog, monkeypatch):
    pairs[3] = pair(3, (60, 50), size)
    with caplog.at_level(logging.INFO):
        prepared(pairs)
        monkeypatch.setenv("RANK", "1")
        prepared(pairs)
    (line,) = caplog.messages
    assert line == "1 of 6 pairs are no exact multiples of 2: cut to their common area."


@pytest.mark.parametrize("cache", CACHES)
def test_bad_headers_are_raised_or_skipped(cache, pairs, prepared, caplog, tmp_path):
    pairs[1].lr.write_text("no image")
    pairs[4].hr.unlink()
    with pytest.raises(DataError, match=r"2 of 6 pairs cannot be used:\nlist.txt:1: .*\nlist.txt:4: "):
        prepared(pairs, cache=cache)
    assert not (tmp_path / "cache" / "images").exists()  # nothing was decoded before the message
    kept, source = prepared(pairs, cache=cache, on_error="skip")
    assert kept == [pairs[number] for number in (0, 2, 3, 5)]
    assert len(source) == 4
    assert "2 of 6 pairs are skipped" in caplog.text


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_bad_pixels_are_raised_or_skipped_if_all_are_decoded(cache, pairs, prepared, caplog):
    pairs[0].lr.write_text("no image")
    break_pixels(pairs[2].hr)
    with pytest.raises(DataError, match=r"1 of 6 pairs cannot be used:\nlist\.txt:0: "):
        prepared(pairs, cache=cache)
    kept, source = prepared(pairs, cache=cache, on_error="skip")
    assert kept == [pairs[number] for number in (1, 3, 4, 5)]
    assert [source[number][1].shape for number in range(len(source))] == [(120, 100, 3)] * 4
    assert "2 of 6 pairs are skipped" in caplog.text
    assert "list.txt:2: " in caplog.text


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_skipping_all_pairs_is_an_error(cache, pairs, prepared):
    for pair in pairs:
        break_pixels(pair.lr)
    with pytest.raises(DataError, match="6 of 6 pairs cannot be used"):
        prepared(pairs, cache=cache, on_error="skip")
    for pair in pairs:
        pair.lr.unlink()
    with pytest.raises(DataError, match="6 of 6 pairs cannot be used"):
        prepared(pairs, cache=cache, on_error="skip")


@pytest.mark.slow
def test_all_ranks_skip_the_same_pairs(pairs, python, tmp_path):
    lists = []
    for rank in range(2):
        folder = tmp_path / f"machine{rank}"
        folder.mkdir()
        for pair in pairs:
            for path in (pair.lr, pair.hr):
                (folder / path.name).write_bytes(path.read_bytes())
        lists.append(folder / "list.txt")
        lists[-1].write_text("".join(f"{pair.lr.name} {pair.hr.name}\n" for pair in pairs))
    (tmp_path / "machine0" / "lr1.png").unlink()
    (tmp_path / "machine1" / "hr3.png").write_text("no image")
    break_pixels(tmp_path / "machine1" / "hr4.png")

    def start(rank):
        command = [python, "-c", RANK, str(rank), str(tmp_path / "store"), str(lists[rank])]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    ranks = [start(rank) for rank in range(2)]
    # The third line: one of them cannot write its cache, and neither of them waits for the other forever.
    expected = "lr0 lr2 lr5 3 (60, 50, 3)\n2 of 6 pairs cannot be used:\nTrue\n"
    assert [rank.communicate(timeout=120)[0] for rank in ranks] == [expected] * 2


def test_pairs_that_are_too_small_are_named_with_the_patch_that_fits_all(pair, prepared):
    pairs = [pair(1, (30, 40), (60, 80)), pair(2, (22, 50), (44, 101)), pair(3, (90, 90), (180, 180))]
    broken = pair(4, (9, 9), (18, 18))
    broken.hr.write_text("no image")
    with pytest.raises(DataError) as error:
        prepared([*pairs, broken], patch_size=48)
    _, first, second, _, skip = str(error.value).splitlines()
    assert skip == "Repair them, or skip them by data.on_error=skip."
    assert first.endswith("; data.patch_size=22 fits all")
    assert second.endswith("; data.patch_size=22 fits all")
    kept, _ = prepared(pairs, patch_size=22)
    assert kept == pairs
    with pytest.raises(DataError, match=r"list\.txt:4: .*not an image that can be read\n.*on_error=skip\.$"):
        prepared([*pairs, broken], patch_size=22)
