"""Damaged disk caches and image indexes: never a wrong pixel, and at most one message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2csr.data import cache as cache_module
from d2csr.data.cache import DiskCache
from d2csr.data.check import prepare
from d2csr.data.image_index import ImageFile, check_images
from d2csr.data.images import read_rgb
from d2csr.data.lists import ImagePair

# Repairs every cache of a folder, and prints its name where all its pixels are right then.
FILLER = """
import resource, sys
from pathlib import Path
from d2csr.data.cache import DiskCache
from d2csr.data.image_index import check_images
from d2csr.data.images import read_rgb

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, -1))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
caches, *images = map(Path, sys.argv[1:])
for folder in sorted(caches.iterdir()):
    cache = DiskCache(folder)
    files = check_images(images, folder)
    if cache.fill(files) == {} and all(
        (cache.read(file) == read_rgb(file.path)).all() for file in files
    ):
        print(folder.name)
"""


def keep_state(path, content):
    """Replace the content of a file in place, with the former time of change."""
    status = path.stat()
    path.chmod(0o600)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(path, make):
    path.unlink()
    make(path)


def change(at, value=0x55):
    def damage(path):
        content = bytearray(path.read_bytes())
        content[at if at >= 0 else len(content) + at] ^= value
        keep_state(path, content)

    return damage


# What happens to an entry of the cache; each damage also happens to a file of the same size and time where it can.
DAMAGE = {
    "zeroed": lambda path: keep_state(path, bytes(path.stat().st_size)),
    "ones": lambda path: keep_state(path, b"\xff" * path.stat().st_size),
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"\x93"),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:60]),
    "cut in the pixels": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "cut by a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "without the checksum": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "magic string": change(0),
    "header": change(40),
    "first pixel": change(128),
    "one bit of the first pixel": change(128, 1),
    "pixel in the middle": change(1000),
    "last pixel": change(-5),
    "checksum": change(-1),
    "zeroed second half": lambda path: keep_state(path, path.read_bytes()[:900] + bytes(path.stat().st_size - 900)),
    "swapped halves": lambda path: keep_state(path, path.read_bytes()[900:] + path.read_bytes()[:900]),
    "folder": lambda path: replaced(path, Path.mkdir),
    "FIFO": lambda path: replaced(path, os.mkfifo),
    "dangling link": lambda path: replaced(path, lambda gone: gone.symlink_to("nowhere")),
    "link to itself": lambda path: replaced(path, lambda gone: gone.symlink_to(gone)),
    "missing": Path.unlink,
}

# What stands in the image index.
INDEXES = {
    "empty": "",
    "no JSON": "{",
    "list": "[]",
    "number": "1",
    "null": "null",
    "nested": "[" * 100_000,
    "former format": '{"format": 1, "images": []}',
    "no images": '{"format": 2}',
    "images of a wrong kind": '{"format": 2, "images": 5}',
    "too few values": '{"format": 2, "images": [["x"]]}',
    "too many values": '{"format": 2, "images": [["x", 1, 2, 3, 4, 5, true, 7]]}',
    "no path": '{"format": 2, "images": [[1, 1, 2, 3, 4, 5, true]]}',
    "list for a path": '{"format": 2, "images": [[[], 1, 2, 3, 4, 5, true]]}',
    "control characters": "\x00\x01\x02",
    "huge number": f'{{"format": 2, "images": [["x", {"9" * 10_000}]]}}',
}


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return check_images(sorted(folder.iterdir()), tmp_path / "index")


@pytest.fixture
def cache(tmp_path, files):
    made = DiskCache(tmp_path / "cache")
    assert made.fill(files) == {}
    return made


def entry(cache, file):
    return cache.folder / cache.name(file)


def is_right(cache, files):
    return all(np.array_equal(cache.read(file), read_rgb(file.path)) for file in files)


def test_the_corpus_is_large_enough():
    assert len(DAMAGE) >= 20


@pytest.mark.parametrize("name", [name for name in DAMAGE if name != "folder"])
def test_a_damaged_entry_is_decoded_anew_and_no_other(name, cache, files, monkeypatch):
    DAMAGE[name](entry(cache, files[1]))
    decoded = []
    monkeypatch.setattr(cache_module, "read_rgb", lambda path: decoded.append(path) or read_rgb(path))
    assert cache.fill(files) == {}
    assert decoded == [files[1].path]
    assert is_right(cache, files)


def test_a_folder_in_the_place_of_an_entry_is_named(cache, files):
    DAMAGE["folder"](entry(cache, files[1]))
    with pytest.raises(ValueError, match="decoded images cannot be written there") as error:
        cache.fill(files)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["empty", "one byte", "cut in the pixels", "cut by a byte", "missing", "FIFO"])
def test_an_entry_that_is_cut_during_the_run_is_decoded_from_its_file(name, tmp_path, noise_pair):
    _, source = prepare(lambda: [noise_pair], scale=2, cache="disk", cache_dir=tmp_path / "run")
    expected = [array.copy() for array in source[0]]
    for path in (tmp_path / "run" / "images").glob("*/*.npy"):
        DAMAGE[name](path)
    assert all(np.array_equal(array, other) for array, other in zip(source[0], expected, strict=True))


@pytest.fixture
def noise_pair(tmp_path):
    paths = [tmp_path / "lr.png", tmp_path / "hr.png"]
    for path, (height, width) in zip(paths, ((20, 30), (40, 60)), strict=True):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return ImagePair(*paths, "list.txt:1")


def test_a_source_that_was_replaced_with_the_same_size_and_time_is_noticed(tmp_path):
    path, other = tmp_path / "a.bmp", tmp_path / "b.bmp"
    for target, colour in ((path, "red"), (other, "blue")):
        Image.new("RGB", (5, 4), colour).save(target)
        os.utime(target, ns=(0, 1))
    cache = DiskCache(tmp_path / "cache")
    first = check_images([path], tmp_path / "index")
    cache.fill(first)
    other.replace(path)
    second = check_images([path], tmp_path / "index")
    assert (first[0].stored, first[0].modified) == (second[0].stored, second[0].modified)
    assert not first[0].unchanged
    cache.fill(second)
    assert is_right(cache, second)
    assert cache.read(second[0])[0, 0].tolist() == [0, 0, 255]


def test_a_nanosecond_is_another_image(files, cache):
    changed = ImageFile(**{**files[0].__dict__, "modified": files[0].modified + 1})
    assert cache.name(changed) != cache.name(files[0])


@pytest.mark.parametrize("name", INDEXES)
def test_a_damaged_index_is_made_anew(name, files, tmp_path):
    (index,) = (tmp_path / "index" / "headers").glob("*.json")
    index.write_text(INDEXES[name])
    assert check_images([Path(file.path) for file in files], tmp_path / "index") == files
    assert len(json.loads(index.read_text())["images"]) == 3


@pytest.mark.parametrize(("column", "value"), [(4, "20"), (4, 20.0), (4, None), (4, -1), (5, 0), (5, True), (6, 1)])
def test_an_index_with_values_of_a_wrong_kind_is_made_anew(column, value, files, tmp_path):
    (index,) = (tmp_path / "index" / "headers").glob("*.json")
    content = json.loads(index.read_text())
    content["images"][0][column] = value
    index.write_text(json.dumps(content))
    assert check_images([Path(file.path) for file in files], tmp_path / "index") == files


def test_an_index_that_is_a_fifo_does_not_block(files, tmp_path):
    (index,) = (tmp_path / "index" / "headers").glob("*.json")
    replaced(index, os.mkfifo)
    assert check_images([Path(file.path) for file in files], tmp_path / "index") == files
    assert index.is_file()


@pytest.mark.slow
def test_another_process_repairs_every_damage_within_limits(files, tmp_path):
    names = [name for name in DAMAGE if name != "folder"]
    for number, name in enumerate(names):
        made = DiskCache(tmp_path / "caches" / f"{number:02}")
        made.fill(files)
        DAMAGE[name](entry(made, files[1]))
    command = [sys.executable, "-c", FILLER, str(tmp_path / "caches"), *(file.path for file in files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == [f"{number:02}" for number in range(len(names))], done.stderr
