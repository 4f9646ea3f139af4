from __future__ import annotations

import json
import logging
import os

import numpy as np
import pytest
from PIL import Image

from d2csr.data import image_index as index
from d2csr.data.image_index import ImageFile, check_images
from d2csr.errors import DataError


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def opened(monkeypatch):
    """The names of the images that are opened, in no order."""
    names = []
    read = index.read_size

    def counted(path, **options):
        names.append(path.name)
        return read(path, **options)

    monkeypatch.setattr(index, "read_size", counted)
    return names


def images(folder, *sizes):
    paths = []
    for number, (height, width) in enumerate(sizes):
        paths.append(folder / f"{number}.png")
        Image.new("RGB", (width, height)).save(paths[-1])
    return paths


def sizes_of(found):
    return [file.size if isinstance(file, ImageFile) else file for file in found]


def test_sizes_and_file_states_in_the_order_of_the_paths(tmp_path, cache_dir):
    paths = images(tmp_path, (5, 4), (3, 7))
    found = check_images(paths, cache_dir)
    assert sizes_of(found) == [(5, 4), (3, 7)]
    for path, file in zip(paths, found, strict=True):
        assert (file.path, file.stored, file.modified) == (str(path), path.stat().st_size, path.stat().st_mtime_ns)


def test_unchanged_images_are_not_opened_again(tmp_path, cache_dir, opened):
    paths = images(tmp_path, (5, 4), (3, 7))
    first = check_images(paths, cache_dir)
    assert sorted(opened) == ["0.png", "1.png"]
    opened.clear()
    assert check_images(paths, cache_dir) == first
    assert check_images(paths[:1], cache_dir) == first[:1]
    assert opened == []


def test_only_new_images_are_read(tmp_path, cache_dir, opened):
    paths = images(tmp_path, (5, 4), (3, 7))
    check_images(paths[:1], cache_dir)
    opened.clear()
    for _ in range(2):
        assert sizes_of(check_images(paths, cache_dir)) == [(5, 4), (3, 7)]
        assert opened == ["1.png"]


def test_a_changed_image_is_read_again(tmp_path, cache_dir, opened):
    paths = images(tmp_path, (5, 4), (3, 7))
    check_images(paths, cache_dir)
    opened.clear()
    before = paths[1].stat()
    Image.new("RGB", (8, 6)).save(paths[1])
    os.utime(paths[1], ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert sizes_of(check_images(paths, cache_dir)) == [(5, 4), (6, 8)]
    assert opened == ["1.png"]


def test_a_changed_time_alone_causes_a_new_check(tmp_path, cache_dir, opened):
    (path,) = images(tmp_path, (5, 4))
    (file,) = check_images([path], cache_dir)
    opened.clear()
    os.utime(path, ns=(file.modified, file.modified + 1))
    assert not file.unchanged
    check_images([path], cache_dir)
    assert opened == ["0.png"]


def test_problems_are_not_kept_in_the_index(tmp_path, cache_dir):
    (path,) = images(tmp_path, (5, 4))
    whole, status = path.read_bytes(), path.stat()
    path.write_bytes(b"x" * len(whole))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert isinstance(check_images([path], cache_dir)[0], DataError)
    path.write_bytes(whole)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert sizes_of(check_images([path], cache_dir)) == [(5, 4)]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_a_file_cut_short_is_found(kind, tmp_path, cache_dir, noise):
    path = tmp_path / "image"
    Image.fromarray(noise(40, 30)).save(path, kind)
    assert sizes_of(check_images([path], cache_dir)) == [(40, 30)]
    path.write_bytes(path.read_bytes()[:-200])
    (found,) = check_images([path], cache_dir)
    assert str(found).startswith(f"{path}: "), found


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_bytes_after_the_end_are_accepted(kind, tmp_path, cache_dir, noise):
    path = tmp_path / "image"
    Image.fromarray(noise(40, 30)).save(path, kind)
    path.write_bytes(path.read_bytes() + b"camera's notes")
    assert sizes_of(check_images([path], cache_dir)) == [(40, 30)]


def test_png_and_jpeg_are_not_decoded(tmp_path, cache_dir, noise, monkeypatch):
    paths = [tmp_path / "a.png", tmp_path / "a.jpg"]
    for path in paths:
        Image.fromarray(noise(40, 30)).save(path)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded an image"))
    assert sizes_of(check_images(paths, cache_dir)) == [(40, 30), (40, 30)]


@pytest.mark.parametrize(
    "content",
    ["", "no JSON", "[]", "{}", '{"format": 0, "images": []}', '{"format": 1, "images": [["x"]]}', '{"format": 1}'],
)
def test_a_broken_index_is_replaced(content, tmp_path, cache_dir):
    paths = images(tmp_path, (5, 4))
    check_images(paths, cache_dir)
    (index_file,) = (cache_dir / "headers").glob("*.json")
    assert len(json.loads(index_file.read_text())["images"]) == 1
    index_file.write_text(content)
    assert sizes_of(check_images(paths, cache_dir)) == [(5, 4)]
    assert len(json.loads(index_file.read_text())["images"]) == 1


def test_random_damage_of_an_index_never_ends_in_an_error(tmp_path, cache_dir):
    paths = images(tmp_path, (5, 4), (6, 7))
    check_images(paths, cache_dir)
    (index_file,) = (cache_dir / "headers").glob("*.json")
    whole, random = index_file.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for position in random.integers(len(damaged), size=random.integers(1, 4)):
            damaged[position] = random.integers(256)
        index_file.write_bytes(damaged[: random.integers(1, len(damaged) + 1)] if random.random() < 0.3 else damaged)
        assert all(isinstance(file, ImageFile) for file in check_images(paths, cache_dir))
    index_file.write_bytes(whole)


def test_an_index_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    paths = images(tmp_path, (5, 4))
    with caplog.at_level(logging.WARNING):
        assert sizes_of(check_images(paths, tmp_path / "file")) == [(5, 4)]
    assert "the index of checked images cannot be written" in caplog.text
    assert "data.cache_dir=" in caplog.text


def test_file_names_that_are_not_utf_8(tmp_path, cache_dir):
    path = tmp_path / os.fsdecode(b"\xff.png")
    try:
        Image.new("RGB", (4, 5)).save(path)
    except OSError:
        pytest.skip("this file system takes no such names")
    for _ in range(2):
        assert sizes_of(check_images([path], cache_dir)) == [(5, 4)]
