from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from d2csr.data import cache as cache_module
from d2csr.data.cache import DiskCache
from d2csr.data.check import check_pairs
from d2csr.data.images import read_rgb
from d2csr.data.lists import ImagePair
from d2csr.data.sources import CACHES, PairSource, fill_cache


@pytest.fixture
def opened(tmp_path):
    """Open pairs by a cache; return the source, and what is wrong with pairs."""

    def open_pairs(pairs, scale, cache):
        good, problems = check_pairs(pairs, scale, 1, tmp_path / "cache")
        assert problems == {}
        store, problems = fill_cache(good, cache, tmp_path / "cache")
        return PairSource(list(good.values()), scale, store), problems

    return open_pairs


def break_pixels(path):
    """Change a byte in the middle of the file, which its header does not show."""
    content, status = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("cache", CACHES)
def test_pairs_are_cut_to_their_common_area(cache, pair, opened):
    pairs = [pair(1, (6, 5), (24, 20)), pair(2, (6, 5), (27, 19))]
    source, problems = opened(pairs, 4, cache)
    assert problems == {}
    assert len(source) == 2
    for named, (lr, hr), size in zip(pairs, (source[0], source[1]), ((6, 5), (6, 4)), strict=True):
        assert np.array_equal(lr, read_rgb(named.lr)[: size[0], : size[1]])
        assert np.array_equal(hr, read_rgb(named.hr)[: 4 * size[0], : 4 * size[1]])


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_decoded_images_need_no_files(cache, pair, opened):
    named = pair(1, (6, 5), (12, 10))
    expected = read_rgb(named.lr)
    source, _ = opened([named], 2, cache)
    named.lr.unlink()
    assert np.array_equal(source[0][0], expected)


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_an_image_of_several_pairs_is_decoded_once(cache, pair, opened, monkeypatch):
    first, second = pair(1, (6, 5), (12, 10)), pair(2, (6, 5), (12, 10))
    decoded = []
    monkeypatch.setattr(cache_module, "read_rgb", lambda path: decoded.append(path) or read_rgb(path))
    source, _ = opened([first, ImagePair(second.lr, first.hr, "list.txt:2")], 2, cache)
    assert sorted(decoded) == sorted(map(str, (first.lr, first.hr, second.lr)))
    assert np.array_equal(source[0][1], source[1][1])


def test_without_a_cache_a_broken_image_is_named_at_access(pair, opened):
    named = pair(7, (60, 50), (120, 100))
    break_pixels(named.hr)
    source, problems = opened([named], 2, "none")
    assert problems == {}
    with pytest.raises(ValueError, match=r"^list\.txt:7: .*hr7\.png: a broken image"):
        source[0]


@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.parametrize("kind", ["lr", "hr"])
def test_with_a_cache_all_broken_images_are_named(cache, kind, pair, opened):
    pairs = [pair(number, (60, 50), (120, 100)) for number in range(4)]
    for number in (1, 3):
        break_pixels(getattr(pairs[number], kind))
    _, problems = opened(pairs, 2, cache)
    assert sorted(problems) == [1, 3]
    for number, problem in problems.items():
        assert problem.startswith(f"list.txt:{number}: ")
        assert f"{kind}{number}.png: a broken image" in problem


def test_a_deleted_entry_of_the_disk_cache_is_decoded(pair, opened):
    pairs = [pair(number, (6, 5), (24, 21)) for number in range(2)]
    source, _ = opened(pairs, 4, "disk")
    expected = [array.copy() for array in source[1]]
    assert isinstance(source.cache, DiskCache)
    for path in source.cache.folder.glob("*/*.npy"):
        path.unlink()
    assert all(np.array_equal(array, other) for array, other in zip(source[1], expected, strict=True))
    for checked in source.pairs:
        for file in (checked.lr, checked.hr):
            (source.cache.folder / source.cache.name(file)).write_bytes(b"")
    assert all(np.array_equal(array, other) for array, other in zip(source[1], expected, strict=True))


def test_the_pickled_disk_source_is_small(pair, opened):
    pairs = [pair(number, (6, 5), (12, 10)) for number in range(20)]
    source, _ = opened(pairs, 2, "disk")
    copy = pickle.loads(pickle.dumps(source))
    assert all(np.array_equal(array, other) for array, other in zip(copy[19], source[19], strict=True))
    assert len(pickle.dumps(source)) < 1000 * len(pairs)
