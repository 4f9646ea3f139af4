"""Broken and hostile image files: each is decoded or refused with one message, within limits of time and memory."""

from __future__ import annotations

import io
import os
import random
import socket
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from d2csr.data.check import prepare
from d2csr.data.image_index import ImageFile, check_images
from d2csr.data.images import read_rgb, read_size
from d2csr.data.lists import ImagePair
from d2csr.data.sources import CACHES
from d2csr.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM", "GIF")
LIMIT = 10**9  # bytes of address space for a process that reads the corpus

READER = """
import json, resource, sys, warnings
from pathlib import Path
from d2csr.data.image_index import check_images
from d2csr.errors import DataError

warnings.simplefilter("ignore")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]), -1))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
folder = Path(sys.argv[2])
for decode in (False, True):
    paths = sorted(folder.iterdir())
    for path, found in zip(paths, check_images(paths, folder.parent / f"cache{decode}", decode=decode), strict=True):
        print(json.dumps([path.name, str(found) if isinstance(found, DataError) else list(found.size)]))
"""


def saved(kind, size=(16, 12), mode="RGB", **options):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(*chunks, width=4, height=4, depth=8, colour=2, interlace=0):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def pixels_of(height, width):
    return chunk(b"IDAT", zlib.compress(bytes(height * (1 + 3 * width))))


def tiff(*entries):
    """A little-endian TIFF with one directory; entries are (tag, type, count, value)."""
    fields = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + struct.pack("<I", 0)


def sized_tiff(width, height, *more):
    return tiff((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), *more)


def bmp(width, height, bits=24, compression=0):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 48, 0, 0, 54) + header + bytes(48)


def flipped(content, position):
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


def corpus():
    """Files that are no usable image, by name."""
    whole = {kind: saved(kind) for kind in FORMATS}
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    return {
        "empty.png": b"",
        "byte.png": b"\x89",
        "text.png": b"some text\n",
        "zeros.png": bytes(10_000),
        "signature.png": whole["PNG"][:8],
        "cut_header.png": whole["PNG"][:20],
        "cut_half.png": whole["PNG"][: len(whole["PNG"]) // 2],
        "broken_middle.png": flipped(whole["PNG"], len(whole["PNG"]) // 2),
        "no_pixels.png": png(),
        "few_pixels.png": png(chunk(b"IDAT", zlib.compress(bytes(5)))),
        "no_deflate.png": png(chunk(b"IDAT", b"not deflate at all")),
        "bad_filter.png": png(chunk(b"IDAT", zlib.compress(b"\x09" + bytes(12) + bytes(39)))),
        "huge.png": png(pixels_of(1, 1), width=100_000, height=100_000),
        "wide.png": png(pixels_of(1, 1), width=2**31 - 1, height=1),
        "bomb.png": png(chunk(b"IDAT", zlib.compress(bytes(20_000_000))), width=20_001, height=10_000),
        "no_width.png": png(pixels_of(4, 4), width=0),
        "depth_3.png": png(pixels_of(4, 4), depth=3),
        "colour_5.png": png(pixels_of(4, 4), colour=5),
        "long_chunk.png": png()[:33] + b"\xff\xff\xff\xffIDAT" + bytes(40),
        "text_bomb.png": png(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000))), pixels_of(4, 4)),
        "cut.jpg": whole["JPEG"][: len(whole["JPEG"]) // 2],
        "header.jpg": whole["JPEG"][:4],
        "huge.jpg": whole["JPEG"].replace(struct.pack(">HH", 12, 16), struct.pack(">HH", 65_500, 65_500), 1),
        "no_tables.jpg": b"\xff\xd8" + whole["JPEG"][whole["JPEG"].index(b"\xff\xc0") :],
        "markers.jpg": b"\xff\xd8" + b"\xff\xe1\x00\x02" * 5_000 + b"\xff\xd9",
        "cut.webp": whole["WEBP"][:40],
        "riff.webp": b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(50),
        "loop.tif": b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8),
        "outside.tif": sized_tiff(10, 10, (273, 4, 1, 10**6), (278, 4, 1, 10), (279, 4, 1, 100)),
        "huge.tif": sized_tiff(10**6, 10**6, (273, 4, 1, 8), (278, 4, 1, 10**6), (279, 4, 1, 2**31)),
        "no_strips.tif": sized_tiff(10, 10),
        "strange_bits.tif": tiff((256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 1, 77), (262, 3, 1, 9)),
        "many_values.tif": tiff((256, 4, 2**30, 8), (257, 4, 1, 4)),
        "cut.bmp": whole["BMP"][:60],
        "huge.bmp": bmp(100_000, 100_000),
        "strange.bmp": bmp(4, 4, bits=17),
        "negative.bmp": bmp(-4, 4),
        "run_length.bmp": bmp(4, 4, bits=8, compression=1),
        "huge.ppm": b"P6 100000 100000 255\n" + bytes(30),
        "words.ppm": b"P6 four four 255\n" + bytes(48),
        "few.ppm": b"P6 4 4 255\n" + bytes(5),
        "eps.png": eps,
        "pdf.png": b"%PDF-1.4\n1 0 obj\n<< >>\nendobj\n%%EOF\n",
        "cut.gif": saved("GIF")[:40],
        "huge.gif": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + saved("GIF")[10:],
        "ico.png": saved("ICO"),
        "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>',
        "psd.png": b"8BPS" + bytes(100),
        "float.tif": saved("TIFF", mode="F"),
    }


CORPUS = corpus()


def many_strips(count):
    """A TIFF of four pixels a row, with a strip for each row."""
    places = struct.pack("<I", 8) * count + struct.pack("<I", 4) * count
    entries = [(256, 4, 1, 4), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (278, 4, 1, 1)]
    content = tiff(*entries, (273, 4, count, 110), (279, 4, count, 110 + 4 * count))
    return content.ljust(110, b"\0") + places


def test_an_image_of_very_many_strips_is_refused(tmp_path):
    path = tmp_path / "strips.tif"
    path.write_bytes(many_strips(100))
    assert message_of(read_rgb, path) == ""
    path.write_bytes(many_strips(200_001))
    assert message_of(read_rgb, path) == f"{path}: has more than 200,000 strips or tiles; save it with fewer."


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "images"
    made.mkdir()
    for name, content in CORPUS.items():
        (made / name).write_bytes(content)
    return made


def message_of(read, path):
    """The message of the error, or nothing where the image is decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(path)
        except DataError as error:
            return str(error)
    return ""


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_image_is_refused_with_its_path(name, folder):
    message = message_of(read_rgb, folder / name)
    assert message.startswith(f"{folder / name}: ")
    assert "\n" not in message


def test_the_corpus_is_large_enough():
    assert len(CORPUS) >= 30


@pytest.mark.parametrize("name", [name for name in CORPUS if name.startswith(("huge", "bomb", "wide"))])
def test_the_limit_of_pixels_is_checked_before_decoding(name, folder, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    for read in (read_rgb, read_size):
        assert "above the limit of 200,000,000" in message_of(read, folder / name)


@pytest.mark.parametrize(
    "error",
    [OSError("x"), ValueError("x"), KeyError("x"), IndexError("x"), EOFError(), struct.error("x"), MemoryError()],
    ids=lambda error: type(error).__name__,
)
def test_any_error_of_a_decoder_is_one_message(error, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise error

    path = tmp_path / "image.tif"
    path.write_bytes(saved("TIFF"))
    monkeypatch.setattr(Image.Image, "convert", broken)
    for read in (read_rgb, lambda path: read_size(path, complete=True)):
        memory = "not enough memory to decode this image."
        broken_image = f"a broken image ({str(error) or type(error).__name__})"
        assert message_of(read, path) == f"{path}: {memory if isinstance(error, MemoryError) else broken_image}"


@pytest.mark.parametrize("kind", FORMATS)
def test_random_changes_are_decoded_or_refused(kind, tmp_path):
    generator, whole, path = random.Random(kind), saved(kind), tmp_path / "image"
    refused = 0
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(generator.choice((1, 1, 3, 20))):
            content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(content[: generator.choice((len(content), generator.randrange(len(content))))])
        message = message_of(read_rgb, path)
        assert message == "" or message.startswith(f"{path}: ")
        refused += bool(message)
    assert refused > 10


@pytest.mark.parametrize("kind", ["fifo", "socket", "folder", "device", "link loop", "long name", "NUL"])
def test_a_path_that_is_no_regular_file_is_refused_without_waiting(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    path = tmp_path / "image.png"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("image.png")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link loop":
        path.symlink_to(path)
    else:
        path = {"device": "/dev/zero", "long name": f"{'x' * 300}.png", "NUL": "a\0b.png"}[kind]
    expected = r"regular file" if kind in ("fifo", "socket", "folder", "device") else "cannot be read"
    for read in (read_rgb, read_size):
        assert expected in message_of(read, path)


def test_nothing_but_the_allowed_decoders_runs(tmp_path, monkeypatch):
    """Pillow starts Ghostscript for EPS files of any suffix; a stand-in for it leaves a mark."""
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=os.pathsep)
    path = tmp_path / "image.png"
    path.write_bytes(CORPUS["eps.png"])
    assert message_of(read_rgb, path) == f"{path}: not an image that can be read"
    assert isinstance(check_images([path], tmp_path / "cache", decode=True)[0], DataError)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("cache", CACHES)
def test_skip_leaves_out_an_image_that_is_broken_in_the_middle(cache, tmp_path):
    pairs = []
    for number in range(3):
        paths = [tmp_path / f"{kind}{number}.png" for kind in ("lr", "hr")]
        for path, size in zip(paths, ((16, 12), (32, 24)), strict=True):
            path.write_bytes(saved("PNG", size))
        pairs.append(ImagePair(*paths, f"list.txt:{number}"))
    pairs[1].hr.write_bytes(flipped(saved("PNG", (32, 24)), 900))
    for _ in range(2):  # the second time with the image index
        kept, source = prepare(
            lambda: pairs, scale=2, patch_size=4, cache=cache, cache_dir=tmp_path / "cache", on_error="skip"
        )
        assert kept == [pairs[0], pairs[2]]
        assert [source[number][1].shape for number in range(len(source))] == [(24, 32, 3)] * 2


def test_an_image_that_shrinks_during_the_run_is_named(tmp_path):
    paths = [tmp_path / "lr.png", tmp_path / "hr.png"]
    for path, size in zip(paths, ((16, 12), (32, 24)), strict=True):
        path.write_bytes(saved("PNG", size))
    _, source = prepare(lambda: [ImagePair(*paths, "list.txt:1")], scale=2, patch_size=12, cache_dir=tmp_path / "cache")
    paths[0].write_bytes(saved("PNG", (8, 6)))
    with pytest.raises(DataError, match=r"^list\.txt:1: .*lr\.png: was changed during the run; restore it"):
        source[0]


@pytest.mark.slow
def test_the_corpus_is_refused_within_limits_of_memory_and_time(folder):
    (folder / "good.png").write_bytes(saved("PNG"))
    os.mkfifo(folder / "fifo.png")
    command = [sys.executable, "-c", READER, str(LIMIT), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * (len(CORPUS) + 2)
    decoded = [line for line in lines if line.endswith("[12, 16]]")]
    assert sum('"good.png"' in line for line in decoded) == 2
    checked = check_images([folder / "good.png"], folder.parent / "other")[0]
    assert isinstance(checked, ImageFile)
    refused = [line for line in lines[len(lines) // 2 :] if str(folder) in line]
    assert len(refused) == len(CORPUS) + 1
