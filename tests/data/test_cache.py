from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from platformdirs import user_cache_path

from d2csr.data import cache as cache_module
from d2csr.data.cache import DiskCache, cache_folder
from d2csr.data.image_index import check_images
from d2csr.data.images import read_rgb
from d2csr.errors import DataError

# A process that fills the cache, slowly, and writes down what it decodes: python -c BUILDER CACHE LOG IMAGE...
BUILDER = """
import sys, time
from pathlib import Path
from d2csr.data import cache
from d2csr.data.image_index import check_images

folder, log, *images = map(Path, sys.argv[1:])
read = cache.read_rgb
def slowly(path):
    with log.open("a") as file:
        file.write(f"{path}\\n")
    time.sleep(0.05)
    return read(path)
cache.read_rgb = slowly
print("ready", flush=True)
sys.stdin.readline()
problems = cache.DiskCache(folder).fill(check_images(images, folder))
assert problems == {}, problems
"""


@pytest.fixture
def images(tmp_path, noise):
    """Write images of these sizes, and return what their headers say."""

    def write(*sizes):
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        paths = [folder / f"{number}.png" for number in range(len(sizes))]
        for number, (path, size) in enumerate(zip(paths, sizes, strict=True)):
            Image.fromarray(noise(*size, seed=number)).save(path)
        return headers(paths)

    def headers(paths):
        return check_images(paths, tmp_path / "headers")

    return write


@pytest.fixture
def cache(tmp_path):
    return DiskCache(tmp_path / "cache")


@pytest.fixture
def decoded(monkeypatch):
    """The names of the images that are decoded, in no order."""
    names = []

    def counted(path):
        names.append(Path(path).name)
        return read_rgb(path)

    monkeypatch.setattr(cache_module, "read_rgb", counted)
    return names


def again(files, tmp_path):
    return check_images([Path(file.path) for file in files], tmp_path / "headers")


def pixels(cache, file):
    return cache.read(file)


def complete(cache, files):
    return all(np.array_equal(pixels(cache, file), read_rgb(file.path)) for file in files)


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def stored(cache):
    return sorted(cache.folder.glob("*/[!.]*.npy"))


def test_entries_hold_the_decoded_images(cache, images):
    files = images((5, 4), (300, 200), (1, 1))
    assert cache.fill(files) == {}
    assert complete(cache, files)
    assert pixels(cache, files[1]).shape == (300, 200, 3)
    assert not pixels(cache, files[0]).flags.writeable


def test_numpy_reads_an_entry(cache, images):
    (file,) = images((5, 4))
    cache.fill([file])
    array = np.load(cache.folder / cache.name(file), allow_pickle=False)
    assert np.array_equal(array.transpose(1, 2, 0), read_rgb(file.path))


def test_each_image_is_decoded_once(cache, images, decoded):
    files = images((5, 4), (6, 7))
    cache.fill(files)
    assert sorted(decoded) == ["0.png", "1.png"]
    decoded.clear()
    cache.fill(files)
    DiskCache(cache.folder.parent).fill(files)
    assert decoded == []


def test_only_a_changed_image_is_decoded_again(cache, images, decoded, tmp_path, noise):
    files = images((5, 4), (6, 7))
    cache.fill(files)
    decoded.clear()
    Image.fromarray(noise(5, 4, seed=9)).save(files[0].path)
    os.utime(files[0].path, ns=(0, files[0].modified + 1))
    changed = again(files, tmp_path)
    cache.fill(changed)
    assert decoded == ["0.png"]
    assert complete(cache, changed)
    assert not np.array_equal(pixels(cache, files[0]), pixels(cache, changed[0]))


def test_images_of_equal_size_and_time_are_not_confused(cache, tmp_path):
    paths = [tmp_path / "0.bmp", tmp_path / "1.bmp"]
    for number, path in enumerate(paths):
        Image.new("RGB", (4, 5), (number, 0, 0)).save(path)
        os.utime(path, ns=(0, 0))
    files = check_images(paths, tmp_path / "headers")
    assert files[0].stored == files[1].stored
    cache.fill(files)
    assert complete(cache, files)


def test_an_image_is_written_atomically(cache, images, monkeypatch):
    (file,) = images((5, 4))
    replace, seen = Path.replace, []

    def watched(self, target):
        seen.append((self.stat().st_size, target.exists()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    cache.fill([file])
    assert seen == [(128 + 3 * 5 * 4 + 4, False)]
    assert [path.stat().st_size for path in stored(cache)] == [128 + 3 * 5 * 4 + 4]


def test_an_image_that_changes_while_it_is_read_is_refused(cache, images, monkeypatch):
    files = images((5, 4), (6, 7))

    def meddled(path):
        if path == files[0].path:
            os.utime(path, ns=(0, 1))
        return read_rgb(path)

    monkeypatch.setattr(cache_module, "read_rgb", meddled)
    assert "0.png: was changed during the run" in cache.fill(files)[files[0].path]
    assert len(stored(cache)) == 1


def test_a_truncated_entry_is_decoded_again(cache, images, decoded):
    files = images((5, 4), (6, 7))
    cache.fill(files)
    decoded.clear()
    path = cache.folder / cache.name(files[1])
    path.write_bytes(path.read_bytes()[:-1])
    cache.fill(files)
    assert decoded == ["1.png"]
    assert complete(cache, files)


def test_problems_name_broken_images_and_the_others_are_cached(cache, images):
    files = images((50, 40), (60, 70), (5, 4))
    path = Path(files[1].path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(0, files[1].modified))
    problems = cache.fill(files)
    assert list(problems) == [str(path)]
    assert "1.png: a broken image" in problems[str(path)]
    assert complete(cache, [files[0], files[2]])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux lists the resident pages of a process")
def test_a_crop_reads_only_its_own_pages(cache, tmp_path):
    height, width = 6000, 3000
    Image.new("RGB", (width, height)).save(tmp_path / "large.png")
    (file,) = check_images([tmp_path / "large.png"], tmp_path / "headers")
    cache.fill([file])
    name = Path(cache.name(file)).name

    def resident():
        """The bytes of the image that are in this process's memory; the system maps up to 2 MB around each."""
        entries = iter(Path("/proc/self/smaps").read_text().splitlines())
        sizes = [next(line for line in entries if line.startswith("Rss:")) for entry in entries if name in entry]
        return sum(1024 * int(size.split()[1]) for size in sizes)

    image = pixels(cache, file)
    assert resident() == 0
    image[1000:1100, 700:800].copy()
    assert 3 * 100 * 100 < resident() < 3 * (100 * width + 2 * 2**21)
    image[:, 0].copy()  # a part of every page
    assert resident() >= 3 * height * width > 4 * (100 * width + 2 * 2**21)


def test_maps_do_not_keep_files_open(cache, images):
    (file,) = images((5, 4))
    cache.fill([file])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64 + len(list(Path("/dev/fd").iterdir())), hard))
    try:
        for _ in range(200):
            pixels(cache, file)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def builders(tmp_path):
    """Start processes that all fill the cache with the same images, each with a log of what it decodes."""
    started = []

    def start(files, count, code=BUILDER):
        logs = [tmp_path / f"log{number}" for number in range(count)]
        for log in logs:
            log.touch()
            command = [sys.executable, "-c", code, tmp_path / "cache", log, *(file.path for file in files)]
            started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        for process in started:
            assert process.stdout.readline() == b"ready\n"
        for process in started:
            process.stdin.write(b"go\n")
            process.stdin.flush()
        return list(zip(started, logs, strict=True))

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lines(log):
    return len(log.read_text().splitlines())


@pytest.mark.slow
def test_filling_continues_after_a_kill(cache, images, decoded, builders):
    files = images(*[(40 + number, 30) for number in range(60)])
    ((builder, _),) = builders(files, 1)
    wait_for(lambda: len(stored(cache)) >= 5)
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    done = len(stored(cache))
    assert 5 <= done < len(files)
    assert cache.fill(files) == {}
    assert len(decoded) == len(files) - done
    assert complete(cache, files)


@pytest.mark.slow
def test_one_of_several_processes_decodes_and_the_others_wait(cache, images, builders):
    files = images(*[(40 + number, 30) for number in range(30)])
    running = builders(files, 3)
    assert [builder.wait(60) for builder, _ in running] == [0, 0, 0]
    assert sorted(lines(log) for _, log in running) == [0, 0, len(files)]
    assert complete(cache, files)


@pytest.mark.slow
def test_another_process_continues_after_a_kill(cache, images, builders):
    files = images(*[(40 + number, 30) for number in range(60)])
    running = builders(files, 2)
    wait_for(lambda: len(stored(cache)) >= 5)
    running.sort(key=lambda each: lines(each[1]))
    (heir, theirs), (killed, _) = running
    assert lines(theirs) == 0
    killed.send_signal(signal.SIGKILL)
    assert heir.wait(60) == 0
    assert 0 < lines(theirs) < len(files)
    assert complete(cache, files)


@pytest.mark.slow
def test_without_locks_all_processes_fill_the_cache_safely(cache, images, builders):
    files = images(*[(40 + number, 30) for number in range(30)])
    unlocked = """
import filelock
def acquire(*args, **kwargs):
    raise NotImplementedError
filelock.FileLock.acquire = acquire
"""
    running = builders(files, 3, unlocked + BUILDER)
    assert [builder.wait(60) for builder, _ in running] == [0, 0, 0]
    assert sum(lines(log) for _, log in running) > len(files)
    assert len(stored(cache)) == len(files)
    assert complete(cache, files)


def test_a_disk_that_is_too_small_is_an_error_before_writing(cache, images, monkeypatch):
    files = images((5, 4), (600, 700))
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(DataError) as error:
        cache.fill(files)
    needed = 128 + 3 * 5 * 4 + 4 + 128 + 3 * 600 * 700 + 4
    assert str(error.value).startswith(f"{cache.folder}: no room for decoded images")
    assert f"2 more need {needed:,} bytes" in str(error.value)
    assert "1,000 bytes (0.00 GB) are free" in str(error.value)
    assert "data.cache_dir=" in str(error.value)
    assert stored(cache) == []


def test_a_disk_that_fills_up_leaves_only_complete_entries(cache, images):
    files = images((5, 4), (300, 400), (6, 7))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DataError, match=rf"^{cache.folder}: decoded images cannot be written there \(File too"):
            cache.fill(files)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(cache.folder.glob("*/.*")) == []
    missing = [file for file in files if not (cache.folder / cache.name(file)).exists()]
    assert files[1] in missing
    assert complete(cache, [file for file in files if file not in missing])
    cache.fill(files)
    assert complete(cache, files)


@pytest.mark.parametrize("kind", ["file", "folder that is read only"])
def test_a_folder_that_cannot_be_written_to_is_named(kind, images, tmp_path, monkeypatch):
    files = images((5, 4))
    if kind == "file":
        (tmp_path / "place").write_text("")
    else:
        monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(DataError, match=r"place/images: decoded images cannot be written there .*data\.cache_dir="):
        DiskCache(tmp_path / "place").fill(files)


def read_only(self, *args, **kwargs):
    raise PermissionError(13, "Permission denied", str(self))


def test_a_complete_cache_in_a_read_only_folder_works(cache, images, monkeypatch):
    files = images((5, 4), (6, 7))
    cache.fill(files)
    for change in ("mkdir", "write_bytes", "write_text", "replace", "unlink", "touch"):
        monkeypatch.setattr(Path, change, read_only)
    monkeypatch.setattr(FileLock, "acquire", lambda *args, **kwargs: pytest.fail("wrote a lock"))
    assert cache.fill(files) == {}
    assert complete(cache, files)


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("D2CSR_CACHE_DIR", "/scratch/d2csr")
    assert cache_folder(None) == Path("/scratch/d2csr")
    assert cache_folder("mine") == tmp_path / "mine"
    assert cache_folder("~/mine") == Path.home() / "mine"
    monkeypatch.delenv("D2CSR_CACHE_DIR")
    assert cache_folder(None) == user_cache_path("d2csr", appauthor=False)
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_folder(None) == tmp_path / "d2csr"
