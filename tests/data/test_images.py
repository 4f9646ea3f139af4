from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from d2csr.data.images import read_rgb, read_size
from d2csr.errors import DataError
from d2csr.upscaling.image_writer import write_png16, write_tiff


@pytest.fixture
def saved(tmp_path):
    def save(image, name="image.png", **options):
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def grey(array):
    return np.repeat(np.asarray(array, dtype=np.uint8)[..., None], 3, axis=2)


def test_colours_are_in_rgb_order(saved, noise):
    pixels = noise(5, 4)
    image = read_rgb(saved(Image.fromarray(pixels)))
    assert image.dtype == np.uint8
    assert np.array_equal(image, pixels)
    assert read_rgb(saved(Image.new("RGB", (1, 1), "red"))).tolist() == [[[255, 0, 0]]]


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm"])
def test_lossless_formats_give_the_same_pixels(name, saved, noise):
    pixels = noise(6, 7)
    assert np.array_equal(read_rgb(saved(Image.fromarray(pixels), name)), pixels)


def test_grayscale_is_repeated(saved, noise):
    plane = noise(5, 4)[..., 0]
    assert np.array_equal(read_rgb(saved(Image.fromarray(plane))), grey(plane))


def test_alpha_is_dropped(saved, noise):
    pixels, alpha = noise(5, 4), noise(5, 4, seed=1)[..., :1]
    assert np.array_equal(read_rgb(saved(Image.fromarray(np.concatenate([pixels, alpha], axis=2)))), pixels)
    plane = Image.fromarray(pixels[..., 0])
    with_alpha = Image.merge("LA", [plane, Image.fromarray(alpha[..., 0])])
    assert np.array_equal(read_rgb(saved(with_alpha)), grey(pixels[..., 0]))


def test_a_palette_is_looked_up(saved):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert read_rgb(saved(image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_black_and_white_becomes_0_and_255(saved):
    image = Image.new("1", (2, 1))
    image.putdata([0, 255])
    assert read_rgb(saved(image)).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_sixteen_bits_are_scaled_to_eight(saved):
    image = Image.fromarray(np.array([[0, 257, 128 * 257, 65535, 128, 129]], dtype=np.uint16))
    assert image.mode == "I;16"
    assert np.array_equal(read_rgb(saved(image)), grey([[0, 1, 128, 255, 0, 1]]))


def test_16_bit_colour_keeps_the_upper_byte(saved):
    pixels = np.array([[[0, 255, 256], [257, 65535, 65279]]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        path = saved(Image.new("L", (1, 1)), name)
        if name == "a.png":
            write_png16(path, pixels, None, 6)
        else:
            write_tiff(path, pixels, None)
        assert read_rgb(path).tolist() == [[[0, 0, 1], [1, 255, 254]]]


@pytest.mark.parametrize("name", ["a.tif", "a.jpg"])
def test_cmyk_becomes_rgb(name, saved):
    assert read_rgb(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), name)).tolist() == [[[255, 0, 0]] * 8] * 8
    found = read_rgb(saved(Image.new("CMYK", (8, 8), (100, 0, 255, 100)), name))
    assert np.abs(found - np.array([155 * 155 / 255, 155, 0])).max() <= 2


def test_grey_jpeg_and_a_palette_with_alpha(saved, noise):
    assert read_rgb(saved(Image.new("L", (8, 8), 77), "a.jpg")).tolist() == [[[77, 77, 77]] * 8] * 8
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert read_rgb(saved(image, transparency=0)).tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("F", (4, 4), 0.5), "floating-point image"),
        (Image.new("I", (4, 4), 70000), "32-bit image of unknown range"),
        (Image.new("I", (4, 4), -1), "32-bit image of unknown range"),
    ],
)
def test_values_of_unknown_range_are_refused(image, message, saved):
    with pytest.raises(DataError, match=message):
        read_rgb(saved(image, "a.tif"))


@pytest.mark.parametrize(("name", "turned"), [("a.png", False), ("a.jpg", False), ("a.tif", True)])
def test_size_and_pixels_agree_on_an_orientation_tag(name, turned, saved, noise):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(Image.fromarray(noise(4, 6)), name, exif=exif)
    assert read_size(path) == ((6, 4) if turned else (4, 6))
    assert read_rgb(path).shape[:2] == read_size(path)


@pytest.mark.parametrize("read", [read_rgb, read_size])
def test_a_decompression_bomb_is_refused(read, saved):
    path = saved(Image.new("RGB", (1, 1)))
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(DataError, match="claims 100000×100000 = 10,000,000,000 pixels, above the limit of 200,000,000"):
        read(path)


def test_the_size_is_height_and_width(saved, noise):
    assert read_size(saved(Image.fromarray(noise(5, 4)))) == (5, 4)


def test_the_array_is_writable(saved, noise):
    image = read_rgb(saved(Image.fromarray(noise(5, 4))))
    image[0, 0] = 0


@pytest.mark.parametrize("read", [read_rgb, read_size])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"some text\n", "not an image that can be read"),
        (b"\x00" * 100, "not an image that can be read"),
        (b"\x89PNG\r\n\x1a\n", "broken|not an image"),
    ],
)
def test_a_file_that_is_no_image_is_named(read, content, message, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"image\.png: ({message})"):
        read(path)


@pytest.mark.parametrize("read", [read_rgb, read_size])
def test_a_missing_image_is_named(read, tmp_path):
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        read(tmp_path / "none.png")


@pytest.mark.parametrize("read", [read_rgb, read_size])
def test_a_folder_is_refused(read, tmp_path):
    with pytest.raises(DataError, match="not a regular file"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_an_image_cut_anywhere_is_refused_or_read_but_never_crashes(kind, noise, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(noise(24, 24)).save(buffer, kind)
    whole = buffer.getvalue()
    path = tmp_path / "cut.img"
    refusals = []
    for length in range(0, len(whole) - 30, len(whole) // 30):
        path.write_bytes(whole[:length])
        try:
            assert read_rgb(path).shape == (24, 24, 3)
        except DataError as error:
            refusals.append(str(error))
    assert len(refusals) > 20
    assert all("cut.img: " in message for message in refusals)


def test_a_broken_byte_in_the_pixels_is_refused(saved, noise):
    path = saved(Image.fromarray(noise(24, 24)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"image\.png: a broken image"):
        read_rgb(path)
