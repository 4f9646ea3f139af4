from __future__ import annotations

import numpy as np
import pytest

from d2csr.data.images import read_rgb
from d2csr.data.sources import open_source
from d2csr.errors import ConfigError, DataError


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_pairs_are_cut_to_what_both_cover(cache, pair):
    pairs = [pair(1, (6, 5), (24, 20)), pair(2, (6, 5), (27, 19))]
    source = open_source(pairs, 4, cache)
    assert len(source) == 2
    for named, (lr, hr), size in zip(pairs, (source[0], source[1]), ((6, 5), (6, 4)), strict=True):
        assert np.array_equal(lr, read_rgb(named.lr)[: size[0], : size[1]])
        assert np.array_equal(hr, read_rgb(named.hr)[: 4 * size[0], : 4 * size[1]])


def test_from_memory_images_come_without_their_files(pair):
    named = pair(1, (6, 5), (12, 10))
    expected = read_rgb(named.lr)
    source = open_source([named], 2, "ram")
    named.lr.unlink()
    assert np.array_equal(source[0][0], expected)


@pytest.mark.parametrize("kind", ["lr", "hr"])
def test_an_image_that_cannot_be_decoded_is_named_with_its_line(kind, pair):
    named = pair(7, (6, 5), (12, 10))
    getattr(named, kind).write_text("text")
    with pytest.raises(DataError, match=rf"list\.txt:7: .*{kind}7\.png: not an image"):
        open_source([named], 2, "none")[0]
    with pytest.raises(DataError, match=r"list\.txt:7: "):
        open_source([named], 2, "ram")


def test_an_unknown_cache_is_named(pair):
    with pytest.raises(ConfigError, match=r"data\.cache: must be none or ram, got 'disk'"):
        open_source([], 2, "disk")
