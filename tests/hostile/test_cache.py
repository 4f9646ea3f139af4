"""Faults of the disk cache and of the image index: pixels are always those of the images."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from d2csr.data.check import prepare
from d2csr.data.image_index import index_images
from d2csr.data.images import read_rgb
from d2csr.data.lists import ImagePair


@pytest.fixture
def opened(tmp_path):
    """Open three pairs with the disk cache; return the source, and the expected images."""
    pairs = []
    for number in range(3):
        lr, hr = (tmp_path / f"{kind}{number}.png" for kind in ("lr", "hr"))
        pixels = np.random.default_rng(number).integers(1, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels[:20, :20]).save(lr)
        Image.fromarray(pixels).save(hr)
        pairs.append(ImagePair(lr, hr, f"list.txt:{number}"))

    def open_pairs():
        _, source = prepare(lambda: pairs, scale=2, cache="disk", cache_dir=tmp_path / "cache")
        return source, [(read_rgb(pair.lr), read_rgb(pair.hr)) for pair in pairs]

    return open_pairs


def equal(source, expected) -> bool:
    return all(np.array_equal(a, b) for n in range(3) for a, b in zip(source[n], expected[n], strict=True))


def zeros(content: bytes) -> bytes:
    return b"\0" * len(content)


FAULTS = {
    "zeroed": zeros,
    "zeroed pixels": lambda content: content[:128] + zeros(content[128:]),
    "zeroed header": lambda content: zeros(content[:128]) + content[128:],
    "zeroed page": lambda content: content[:300] + zeros(content[300:600]) + content[600:],
    "zeroed checksum": lambda content: content[:-4] + zeros(content[-4:]),
    "zeroed last pixels": lambda content: content[:-100] + zeros(content[-100:]),
    "one bit": lambda content: content[:500] + bytes([content[500] ^ 1]) + content[501:],
    "one bit of the header": lambda content: content[:20] + bytes([content[20] ^ 1]) + content[21:],
    "empty": lambda content: b"",
    "header alone": lambda content: content[:128],
    "half": lambda content: content[: len(content) // 2],
    "one byte less": lambda content: content[:-1],
    "one byte more": lambda content: content + b"\0",
    "without checksum": lambda content: content[:-4],
    "twice": lambda content: content * 2,
    "text": lambda content: b"x" * len(content),
    "swapped halves": lambda content: content[: len(content) // 2][::-1] + content[len(content) // 2 :],
    "rotated": lambda content: content[1:] + content[:1],
}


@pytest.mark.parametrize("when", ["before the start", "during the run"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_entry_is_never_used(fault, when, opened, tmp_path):
    source, expected = opened()
    for path in (tmp_path / "cache" / "images").glob("*/*.npy"):
        path.write_bytes(FAULTS[fault](path.read_bytes()))
    if when == "before the start":
        source, _ = opened()
    assert equal(source, expected)
    for _ in range(2):  # a damaged image of a pair is found after the other one is rebuilt
        source, _ = opened()
        assert equal(source, expected)
    source, _ = opened()
    for name, size in zip(source._names.flat, source._sizes.reshape(-1, 2).tolist(), strict=True):
        source.cache.read(name.decode(), *size)  # rebuilt, and valid


@pytest.mark.parametrize("kind", ["FIFO", "folder", "missing", "link to nothing", "link to a device"])
def test_an_entry_of_another_kind(kind, opened, tmp_path):
    source, expected = opened()
    for path in (tmp_path / "cache" / "images").glob("*/*.npy"):
        path.unlink()
        if kind == "FIFO":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind.startswith("link"):
            path.symlink_to("/dev/zero" if "device" in kind else "nowhere")
    assert equal(source, expected)


@pytest.mark.parametrize("how", ["replaced", "time alone"])
def test_a_source_of_the_same_size_and_time_is_told_by_its_inode_or_nanoseconds(how, tmp_path):
    path = tmp_path / "image.bmp"
    Image.new("RGB", (8, 6), (1, 2, 3)).save(path)
    os.utime(path, ns=(0, 1_000_000_000))
    (before,) = index_images([path], tmp_path / "cache")
    Image.new("RGB", (8, 6), (9, 9, 9)).save(tmp_path / "other.bmp")
    if how == "replaced":
        (tmp_path / "other.bmp").replace(path)
        os.utime(path, ns=(0, 1_000_000_000))
    else:
        path.write_bytes((tmp_path / "other.bmp").read_bytes())
        os.utime(path, ns=(0, 1_000_000_001))
    assert path.stat().st_size == before.stored
    assert not before.unchanged
    assert index_images([path], tmp_path / "cache") != [before]


@pytest.mark.parametrize(
    "content",
    [
        '{"format": 2, "images": [["PATH", 1, 2, 3, -4, 5, false]]}',
        '{"format": 2, "images": [["PATH", 1, 2, 3, "4", 5, false]]}',
        '{"format": 2, "images": [[[], 1, 2, 3, 4, 5, false]]}',
        '{"format": 2, "images": {"a": 1}}',
        '{"format": [], "images": []}',
        "[" * 100_000,
        '{"format": 2, "images": [["PATH", 1, 2, 3, 1e999, NaN, false]]}',
    ],
)
def test_an_index_that_makes_no_sense_is_ignored(content, tmp_path):
    path = tmp_path / "image.png"
    Image.new("RGB", (8, 6)).save(path)
    expected = index_images([path], tmp_path / "cache")
    (index,) = (tmp_path / "cache" / "index").glob("*.json")
    index.write_text(content.replace("PATH", str(path)))
    assert index_images([path], tmp_path / "cache") == expected
    assert len(json.loads(index.read_text())["images"]) == 1
