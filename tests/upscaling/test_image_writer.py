"""Written files, read by tifffile and by an independent PNG decoder: Pillow reads no 16-bit colour."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from d2csr.errors import DataError
from d2csr.upscaling.image_reader import ImageArray, read_image
from d2csr.upscaling.image_writer import check_folder, write_image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def decode_png16(file: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode a 16-bit PNG whose rows have the filter "up", by the specification."""
    data, start = b"", 8
    while start < len(file):
        length, kind = struct.unpack(">I4s", file[start : start + 8])
        content = file[start + 8 : start + 8 + length]
        assert struct.unpack(">I", file[start + 8 + length : start + 12 + length])[0] == zlib.crc32(kind + content)
        if kind == b"IHDR":
            assert struct.unpack(">IIBB", content[:10]) == (shape[1], shape[0], 16, (0, 4, 2, 6)[shape[2] - 1])
        data += content if kind == b"IDAT" else b""
        start += 12 + length
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(shape[0], -1)
    assert (rows[:, 0] == 2).all()
    return rows[:, 1:].cumsum(axis=0).astype(np.uint8).copy().view(">u2").reshape(shape)


@pytest.mark.parametrize(
    ("mode", "shape", "alpha"),
    [("L", (5, 7), False), ("LA", (5, 7, 2), True), ("RGB", (5, 7, 3), False), ("RGBA", (5, 7, 4), True)],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_eight_bits_are_read_and_written_as_they_are(mode, shape, alpha, suffix, tmp_path, noise) -> None:
    pixels = noise(*shape)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", icc_profile=SRGB)
    image = read_image(tmp_path / f"a.{suffix}")
    assert (image.alpha is not None) == alpha
    assert image.colour.shape[2] == (1 if mode.startswith("L") else 3)
    write_image(image, tmp_path / "new" / f"b.{suffix}")
    with Image.open(tmp_path / "new" / f"b.{suffix}") as written:
        assert written.mode == mode
        assert np.array_equal(np.asarray(written), pixels)
        assert written.info["icc_profile"] == SRGB
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"b.{suffix}"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_written_are_read_by_other_decoders(channels, suffix, tmp_path, monkeypatch, noise) -> None:
    monkeypatch.setattr("d2csr.upscaling.image_writer._BLOCK_BYTES", 200)  # several blocks of rows
    pixels = noise(23, 14, channels, dtype=np.uint16)
    colour, alpha = (pixels[..., :-1], pixels[..., -1]) if channels in (2, 4) else (pixels, None)
    path = tmp_path / f"a.{suffix}"
    write_image(ImageArray(colour, alpha, SRGB), path)
    others = tifffile.imread(path) if suffix == "tif" else decode_png16(path.read_bytes(), pixels.shape)
    assert np.array_equal(others.reshape(pixels.shape), pixels)
    if (suffix, channels) == ("tif", 2):
        return  # Pillow reads no grey TIFF with alpha in 16 bits
    with Image.open(path) as image:
        assert image.info["icc_profile"] == SRGB
    read = read_image(path)
    assert np.array_equal(read.colour, colour)
    assert (read.alpha is None and alpha is None) or np.array_equal(read.alpha, alpha)
    assert read.icc == SRGB


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_come_close_and_have_eight_bits(suffix, tmp_path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64, 1).repeat(3, axis=2).astype(np.uint16)
    write_image(ImageArray(ramp, icc=SRGB), tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as written:
        assert np.abs(np.asarray(written, float) - ramp / 257).mean() < 2
        assert written.info["icc_profile"] == SRGB


def test_images_that_a_format_cannot_hold_are_refused(tmp_path, noise) -> None:
    with pytest.raises(DataError, match="JPEG holds no transparency"):
        write_image(ImageArray(noise(2, 2, 3), noise(2, 2)), tmp_path / "a.jpg")
    with pytest.raises(DataError, match="16384 pixels a side"):
        write_image(ImageArray(noise(1, 16384, 3)), tmp_path / "a.webp")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_existing_file(tmp_path, monkeypatch, noise) -> None:
    target = tmp_path / "a.png"
    target.write_text("mine")

    def full(image, path, **options):
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DataError, match=r"a\.png: cannot be written \(No space left on device\)"):
        write_image(ImageArray(noise(2, 2, 3)), target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert target.read_text() == "mine"


def test_an_unwritable_folder_is_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match="cannot be written to"):
            check_folder(folder)
    check_folder(tmp_path / "new" / "folder")
    assert not list((tmp_path / "new" / "folder").iterdir())


@pytest.mark.parametrize("stem", ["n" * 251, "é" * 125, "𝄞" * 62], ids=["ascii", "two bytes", "four bytes"])
def test_names_up_to_the_limit_of_the_file_system(stem, tmp_path, noise) -> None:
    write_image(ImageArray(noise(2, 2, 3)), tmp_path / f"{stem}.png", token="t" * 32)
    assert [path.name for path in tmp_path.iterdir()] == [f"{stem}.png"]


def test_a_name_beyond_the_limit_is_refused(tmp_path, noise) -> None:
    with pytest.raises(DataError, match=r"cannot be written \(File name too long\)"):
        write_image(ImageArray(noise(2, 2, 3)), tmp_path / f"{'n' * 252}.png")
    assert not list(tmp_path.iterdir())
