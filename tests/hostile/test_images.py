"""Broken and malicious image files: each gives a DataError, or is read, and nothing else."""

from __future__ import annotations

import contextlib
import io
import os
import random
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2csr.data.check import prepare
from d2csr.data.dataset import CACHES
from d2csr.data.images import read_rgb, read_size
from d2csr.data.lists import ImagePair
from d2csr.errors import DataError


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


ROWS = b"\0" * (3 * 20 + 1) * 24
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
REFUSED = {
    "eps": EPS,
    "pdf": b"%PDF-1.4\n%%EOF\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "wmf": b"\xd7\xcd\xc6\x9a" + b"\0" * 60,
    "fits": b"SIMPLE  =                    T" + b" " * 2850,
    "psd": b"8BPS\0\1" + b"\0" * 60,
    "ico": b"\0\0\1\0\1\0" + b"\1" * 60,
    "png of 10 gigapixels": png(100_000, 100_000, chunk(b"IDAT", zlib.compress(b"\0" * 1000))),
    "png of 4 gigapixels to the side": png(2**31 - 1, 1, chunk(b"IDAT", b"")),
    "png without pixels": png(20, 24),
    "png of size 0": png(0, 0, chunk(b"IDAT", zlib.compress(b""))),
    "png of an unknown depth": png(20, 24, chunk(b"IDAT", zlib.compress(ROWS)), depth=3),
    "png of an unknown colour": png(20, 24, chunk(b"IDAT", zlib.compress(ROWS)), colour=9),
    "png of no zlib stream": png(20, 24, chunk(b"IDAT", b"\xff" * 400)),
    "png with a negative chunk": png(20, 24)[:33] + struct.pack(">I", 0xFFFFFFFF) + b"IDAT",
    "png header alone": b"\x89PNG\r\n\x1a\n",
    "gif header alone": b"GIF89a",
    "bmp header alone": b"BM" + b"\0" * 24,
    "bmp of an unknown header": b"BM" + b"\0" * 12 + struct.pack("<I", 7) + b"\0" * 40,
    "bmp of 16 gigapixels": encoded("BMP")[:18] + struct.pack("<ii", 2**17, 2**17) + encoded("BMP")[26:],
    "tiff header alone": b"II*\0\x08\0\0\0",
    "tiff whose directory is itself": b"II*\0\x08\0\0\0\1\0" + b"\0" * 12 + struct.pack("<I", 8),
    "tiff of no end": b"II*\0\xff\xff\xff\x7f",
    "webp header alone": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
    "jpeg header alone": b"\xff\xd8\xff\xe0",
    "jpeg without tables": b"\xff\xd8\xff\xda\0\x0c" + b"\1" * 40 + b"\xff\xd9",
    "jpeg2000 header alone": b"\0\0\0\x0cjP  \r\n\x87\n",
    "ppm of 10 gigapixels": b"P6 100000 100000 255\n",
    "ppm of no number": b"P6 x y 255\n",
    "empty": b"",
    "text": b"not an image\n",
    "zip": b"PK\3\4" + b"\0" * 60,
    "pickle": b"\x80\4cos\nsystem\n(S'false'\ntR.",
    "zeros": b"\0" * 4096,
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_message(name, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(REFUSED[name])
    with pytest.raises(DataError, match=r"image\.png: "):
        read_rgb(path)


def test_an_eps_named_png_starts_no_program(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    path.write_bytes(EPS)
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail("started a program"))
    for read in (read_rgb, read_size):
        with pytest.raises(DataError, match="not an image that can be read"):
            read(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM"])
@pytest.mark.parametrize("seed", range(15))
@pytest.mark.filterwarnings("ignore")
def test_flipped_bits_are_refused_or_read(kind, seed, tmp_path):
    random_ = random.Random(seed)
    content = bytearray(encoded(kind))
    for _ in range(random_.randint(1, 12)):
        content[random_.randrange(min(len(content), 400))] ^= 1 << random_.randrange(8)
    path = tmp_path / "image.png"
    path.write_bytes(content)
    for read in (read_rgb, read_size):
        with contextlib.suppress(DataError):
            read(path)


@pytest.mark.parametrize("error", [KeyError("x"), struct.error("x"), OverflowError(), MemoryError(), RecursionError()])
def test_whatever_a_decoder_raises_is_a_message(error, tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    path.write_bytes(encoded("PNG"))

    def broken(*args, **options):
        raise error

    monkeypatch.setattr(Image, "open", broken)
    for read in (read_rgb, read_size):
        with pytest.raises(DataError, match=r"image\.png: a broken image \(.+\)"):
            read(path)


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "folder", "NUL", "link to a FIFO"])
def test_no_regular_file(kind, tmp_path):
    path = tmp_path / "image.png"
    if "FIFO" in kind:
        os.mkfifo(tmp_path / "fifo")
        path.symlink_to(tmp_path / "fifo") if "link" in kind else (tmp_path / "fifo").rename(path)
    elif kind == "socket":
        here = socket.socket(socket.AF_UNIX)
        here.bind(os.path.relpath(path))
        here.close()
    elif kind == "folder":
        path.mkdir()
    path = {"device": Path("/dev/zero"), "NUL": Path("a\0b.png")}.get(kind, path)
    for read in (read_rgb, read_size):
        with pytest.raises(DataError):
            read(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["png of 10 gigapixels", "ppm of 10 gigapixels", "bmp of 16 gigapixels"])
def test_the_pixel_limit_comes_before_memory(name, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(REFUSED[name])
    code = (
        "import resource, sys; import numpy; from d2csr.data.images import read_rgb\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
        "try: read_rgb(sys.argv[1])\nexcept ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=20, check=True)
    assert "above the limit of 200,000,000" in done.stdout


@pytest.mark.parametrize("cache", CACHES)
def test_a_png_broken_in_the_middle_is_skipped_with_every_cache(cache, tmp_path, caplog):
    pairs = []
    for number in range(3):
        lr, hr = (tmp_path / f"{kind}{number}.png" for kind in ("lr", "hr"))
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels[:20, :20]).save(lr)
        Image.fromarray(pixels).save(hr)
        pairs.append(ImagePair(lr, hr, f"list.txt:{number}"))
    content = bytearray(pairs[1].hr.read_bytes())
    content[len(content) // 2] ^= 0xFF
    pairs[1].hr.write_bytes(content)
    for _ in range(2):  # the second time from the image index
        kept, source = prepare(lambda: pairs, scale=2, cache=cache, cache_dir=tmp_path / "cache", on_error="skip")
        assert kept == [pairs[0], pairs[2]]
        assert [source[number][1].shape for number in range(2)] == [(40, 40, 3)] * 2
        assert "list.txt:1: " in caplog.text


def test_an_image_that_shrinks_during_the_run_gives_a_message(tmp_path):
    lr, hr = tmp_path / "lr.png", tmp_path / "hr.png"
    Image.new("RGB", (20, 20)).save(lr)
    Image.new("RGB", (40, 40)).save(hr)
    _, source = prepare(lambda: [ImagePair(lr, hr, "list.txt:1")], scale=2, cache_dir=tmp_path / "cache")
    Image.new("RGB", (5, 4)).save(lr)
    with pytest.raises(DataError, match=r"^list\.txt:1: .*lr\.png: was replaced during the run: 5×4 pixels"):
        source[0]
