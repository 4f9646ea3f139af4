from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from d2csr.data.images import open_image, read_rgb
from d2csr.errors import ConfigError, DataError
from d2csr.upscaling.image_reader import ImageArray, read_image
from d2csr.upscaling.image_writer import write_image


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_16_bit_tiffs_of_other_writers_are_read_in_full(order, compression, tmp_path, noise) -> None:
    pixels = noise(9, 6, 3, dtype=np.uint16)
    options = {"compression": compression, "predictor": True} if compression else {}
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", byteorder=order, **options)
    assert np.array_equal(read_image(tmp_path / "a.tif").colour, pixels)


def test_16_bit_planes_are_refused(tmp_path, noise) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(3, 9, 6, dtype=np.uint16), photometric="rgb", planarconfig="separate")
    with pytest.raises(DataError, match="one plane per colour"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("values", [np.full((3, 3), 0.5, np.float32), np.full((3, 3), 70_000, np.int32)])
def test_values_of_unknown_range_are_refused(values, tmp_path) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="of unknown range"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"planarconfig": "separate"}])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint32])
@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 3)])
def test_a_tiff_that_cannot_be_read_is_refused_with_its_reason(shape, dtype, options, tmp_path) -> None:
    if len(shape) == 2 and "planarconfig" in options:
        return
    planes = np.full(shape, 70_000 if dtype == np.uint32 else 1, dtype)
    if "planarconfig" in options:
        planes = np.moveaxis(planes, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb" if len(shape) == 3 else "minisblack", **options)
    for read in (read_image, read_rgb):
        with pytest.raises(DataError) as caught:
            read(tmp_path / "a.tif")
        assert str(caught.value).startswith(f"{tmp_path / 'a.tif'}: "), caught.value
        assert "convert it to 8 or 16 bits" in str(caught.value)
        if np.dtype(dtype).kind == "f":
            assert "float" in str(caught.value)


def test_a_tiff_of_16_bit_grey_with_alpha_is_not_called_broken_alone(tmp_path, noise) -> None:
    pixels = noise(9, 6, 2, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", extrasamples=["unassalpha"])
    with pytest.raises(DataError, match="16-bit grey with alpha"):
        read_image(tmp_path / "a.tif")


def test_a_palette_is_looked_up_with_its_transparency(tmp_path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 0])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", transparency=1)
    assert read_image(tmp_path / "a.png").colour.tolist() == [[[10, 20, 30], [200, 100, 50], [0, 0, 0]]]
    assert read_image(tmp_path / "a.png").alpha is None
    assert read_image(tmp_path / "b.png").alpha.tolist() == [[255, 0, 255]]


def test_black_and_white_becomes_grey_and_cmyk_colour(tmp_path) -> None:
    image = Image.new("1", (2, 1))
    image.putdata([0, 255])
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").colour.tolist() == [[[0], [255]]]
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.tif", icc_profile=b"broken")
    image = read_image(tmp_path / "a.tif")
    assert (image.colour == (255, 0, 0)).all()
    assert image.icc is None  # it told how to read ink


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_an_image_is_turned_upright_once(orientation, suffix, tmp_path, noise) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise(8, 16, 3)).save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    image = read_image(tmp_path / f"a.{suffix}")
    assert np.array_equal(image.colour, expected)
    write_image(image, tmp_path / "b" / f"a.{suffix}")
    with Image.open(tmp_path / "b" / f"a.{suffix}") as written:
        assert 0x0112 not in written.getexif() or written.getexif()[0x0112] == 1
        assert written.size == (image.colour.shape[1], image.colour.shape[0])


def test_16_bit_images_are_turned_upright(tmp_path, noise) -> None:
    pixels = noise(4, 6, 3, dtype=np.uint16)
    write_image(ImageArray(pixels), tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes()[6:]  # PNG's chunk begins without the word Exif
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content + struct.pack(">I", zlib.crc32(b"eXIf" + content))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk + whole[33:])  # after the header
    assert np.array_equal(read_image(tmp_path / "a.png").colour, np.rot90(pixels, -1))


def test_an_image_beyond_the_limit_is_not_decoded(tmp_path, noise) -> None:
    path = tmp_path / "bomb.png"
    Image.fromarray(noise(3, 4)).save(path)
    header = struct.pack(">II", 50_000, 50_000) + path.read_bytes()[24:29]
    whole = path.read_bytes()
    path.write_bytes(whole[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + whole[33:])
    with pytest.raises(DataError, match=r"bomb\.png: claims 50000×50000 = 2,500,000,000 pixels.*max_pixels=2500000000"):
        read_image(path)
    Image.fromarray(noise(3, 4)).save(tmp_path / "small.png")
    assert read_image(tmp_path / "small.png", 12).colour.shape == (3, 4, 1)
    with pytest.raises(DataError, match="above the limit of 11"):
        read_image(tmp_path / "small.png", 11)


def test_the_size_is_checked_before_the_image_is_decoded(tmp_path, noise) -> None:
    Image.fromarray(noise(30, 40)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])  # the header only: decoding fails

    def refuse(height: int, width: int) -> None:
        raise ConfigError(f"memory: {height}×{width}")

    with pytest.raises(ConfigError, match="memory: 30×40"):
        read_image(tmp_path / "a.png", check_size=refuse)
    with pytest.raises(DataError, match=r"a\.png: a broken image"):
        read_image(tmp_path / "a.png", check_size=lambda height, width: None)


def test_a_16_bit_image_that_changes_while_it_is_read_is_refused(tmp_path, noise, monkeypatch) -> None:
    for name, height in (("a.png", 6), ("b.png", 5)):
        write_image(ImageArray(noise(height, 4, 3, dtype=np.uint16)), tmp_path / name)
    opened = []

    def replace_after_the_second(path, limit):
        opened.append(path)
        return open_image(path if len(opened) < 3 else tmp_path / "b.png", limit)

    monkeypatch.setattr("d2csr.upscaling.image_reader.open_image", replace_after_the_second)
    with pytest.raises(DataError, match=r"a\.png: the file changed while it was read"):
        read_image(tmp_path / "a.png")


def test_too_little_memory_to_decode_is_a_message(tmp_path, noise, monkeypatch) -> None:
    Image.fromarray(noise(3, 4)).save(tmp_path / "a.png")

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("d2csr.upscaling.image_reader._decode", fail)
    with pytest.raises(DataError, match=r"a\.png: not enough memory"):
        read_image(tmp_path / "a.png")


@pytest.mark.filterwarnings("error")
def test_eighty_megapixels_pass_without_a_warning(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80_000_000)
    Image.new("1", (12_000, 8_000)).save(tmp_path / "a.png")  # 96
    assert read_image(tmp_path / "a.png").colour.shape == (8_000, 12_000, 1)
    assert Image.MAX_IMAGE_PIXELS == 80_000_000  # other users of Pillow keep their limit


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_cut_image_is_refused_or_read_but_never_crashes(kind, tmp_path, noise) -> None:
    Image.fromarray(noise(24, 24, 3)).save(tmp_path / "whole", kind)
    whole = (tmp_path / "whole").read_bytes()
    refusals = []
    for length in range(0, len(whole) - 30, len(whole) // 20):
        (tmp_path / "cut").write_bytes(whole[:length])
        try:
            read_image(tmp_path / "cut")
        except DataError as error:
            refusals.append(str(error))
    assert len(refusals) > 15
    assert all("cut: " in refusal for refusal in refusals)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_an_image_that_shrinks_while_it_is_read_is_a_message(name, tmp_path, noise) -> None:
    path = tmp_path / name
    Image.fromarray(noise(400, 400)).save(path)
    with pytest.raises(DataError, match=f"{name}: a broken image"):
        read_image(path, check_size=lambda height, width: os.truncate(path, 900))
