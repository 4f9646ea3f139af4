"""What comes out has the form of what went in; tifffile, and a decoder by hand, read what Pillow cannot."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, ImageOps

from d2csr.errors import DataError
from d2csr.inference import Inference
from d2csr.upscaling.image_reader import Picture, read_picture
from d2csr.upscaling.image_writer import check_folder, remove_partial, write_picture
from d2csr.upscaling.upscale_task import enlarge

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape: int, dtype=np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def through(model, figures: np.ndarray) -> np.ndarray:
    """H×W×3 floats in [0, 1] through the plain forward."""
    with torch.no_grad():
        return model(torch.from_numpy(figures.astype(np.float32).transpose(2, 0, 1))[None])[0].numpy()


def png_by_hand(whole: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode a PNG of 16 bits whose rows have the filter "up", by its specification."""
    data, place = b"", 8
    while place < len(whole):
        length, kind = struct.unpack(">I4s", whole[place : place + 8])
        content = whole[place + 8 : place + 8 + length]
        assert struct.unpack(">I", whole[place + 8 + length : place + 12 + length])[0] == zlib.crc32(kind + content)
        if kind == b"IHDR":
            assert struct.unpack(">IIBB", content[:10]) == (shape[1], shape[0], 16, (0, 4, 2, 6)[shape[2] - 1])
        data += content if kind == b"IDAT" else b""
        place += 12 + length
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(shape[0], -1)
    assert (rows[:, 0] == 2).all()
    return rows[:, 1:].cumsum(axis=0).astype(np.uint8).copy().view(">u2").reshape(shape)


@pytest.mark.parametrize(
    ("mode", "shape", "alpha"),
    [("L", (5, 7), False), ("LA", (5, 7, 2), True), ("RGB", (5, 7, 3), False), ("RGBA", (5, 7, 4), True)],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_eight_bits_are_read_and_written_as_they_are(mode, shape, alpha, suffix, tmp_path) -> None:
    pixels = noise(*shape)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", icc_profile=SRGB)
    picture = read_picture(tmp_path / f"a.{suffix}")
    assert (picture.alpha is not None) == alpha
    assert picture.colour.shape[2] == (1 if mode.startswith("L") else 3)
    write_picture(picture, tmp_path / "new" / f"b.{suffix}")
    with Image.open(tmp_path / "new" / f"b.{suffix}") as written:
        assert written.mode == mode
        assert np.array_equal(np.asarray(written), pixels)
        assert written.info["icc_profile"] == SRGB
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"b.{suffix}"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_written_as_others_read_them(channels, suffix, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("d2csr.upscaling.sixteen_bit._BYTES_AT_ONCE", 200)  # several blocks of rows
    pixels = noise(23, 14, channels, dtype=np.uint16)
    colour, alpha = (pixels[..., :-1], pixels[..., -1]) if channels in (2, 4) else (pixels, None)
    path = tmp_path / f"a.{suffix}"
    write_picture(Picture(colour, alpha, SRGB), path)
    others = tifffile.imread(path) if suffix == "tif" else png_by_hand(path.read_bytes(), pixels.shape)
    assert np.array_equal(others.reshape(pixels.shape), pixels)
    if (suffix, channels) == ("tif", 2):
        return  # Pillow reads no grey TIFF with alpha in 16 bits
    with Image.open(path) as image:
        assert image.info["icc_profile"] == SRGB
    read = read_picture(path)
    assert np.array_equal(read.colour, colour)
    assert (read.alpha is None and alpha is None) or np.array_equal(read.alpha, alpha)
    assert read.icc == SRGB


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sixteen_bit_colours_of_others_are_read_in_full(order, compression, tmp_path) -> None:
    pixels = noise(9, 6, 3, dtype=np.uint16)
    options = {"compression": compression, "predictor": True} if compression else {}
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", byteorder=order, **options)
    assert np.array_equal(read_picture(tmp_path / "a.tif").colour, pixels)


def test_sixteen_bit_planes_are_refused_instead_of_misread(tmp_path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(3, 9, 6, dtype=np.uint16), photometric="rgb", planarconfig="separate")
    with pytest.raises(DataError, match="a plane for each colour"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("figures", [np.full((3, 3), 0.5, np.float32), np.full((3, 3), 70_000, np.int32)])
def test_figures_of_unknown_range_are_refused(figures, tmp_path) -> None:
    Image.fromarray(figures).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="whose range nothing tells"):
        read_picture(tmp_path / "a.tif")


def test_a_palette_is_looked_up_with_its_transparency(tmp_path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 0])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", transparency=1)
    assert read_picture(tmp_path / "a.png").colour.tolist() == [[[10, 20, 30], [200, 100, 50], [0, 0, 0]]]
    assert read_picture(tmp_path / "a.png").alpha is None
    assert read_picture(tmp_path / "b.png").alpha.tolist() == [[255, 0, 255]]


def test_black_and_white_becomes_grey_and_cmyk_colour(tmp_path) -> None:
    image = Image.new("1", (2, 1))
    image.putdata([0, 255])
    image.save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").colour.tolist() == [[[0], [255]]]
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.tif", icc_profile=b"broken")
    picture = read_picture(tmp_path / "a.tif")
    assert (picture.colour == (255, 0, 0)).all()
    assert picture.icc is None  # it told how to read ink


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_an_image_is_turned_upright_once(orientation, suffix, tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise(8, 16, 3)).save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    picture = read_picture(tmp_path / f"a.{suffix}")
    assert np.array_equal(picture.colour, expected)
    write_picture(picture, tmp_path / "b" / f"a.{suffix}")
    with Image.open(tmp_path / "b" / f"a.{suffix}") as written:
        assert 0x0112 not in written.getexif() or written.getexif()[0x0112] == 1
        assert written.size == (picture.colour.shape[1], picture.colour.shape[0])


def test_sixteen_bits_are_turned_too(tmp_path) -> None:
    pixels = noise(4, 6, 3, dtype=np.uint16)
    write_picture(Picture(pixels), tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes()[6:]  # PNG's chunk begins without the word Exif
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content + struct.pack(">I", zlib.crc32(b"eXIf" + content))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk + whole[33:])  # after the header
    assert np.array_equal(read_picture(tmp_path / "a.png").colour, np.rot90(pixels, -1))


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_come_close_and_have_eight_bits(suffix, tmp_path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64, 1).repeat(3, axis=2).astype(np.uint16)
    write_picture(Picture(ramp, icc=SRGB), tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as written:
        assert np.abs(np.asarray(written, float) - ramp / 257).mean() < 2
        assert written.info["icc_profile"] == SRGB


def test_what_a_format_cannot_hold_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="JPEG holds no transparency"):
        write_picture(Picture(noise(2, 2, 3), noise(2, 2)), tmp_path / "a.jpg")
    with pytest.raises(DataError, match="16384 pixels a side"):
        write_picture(Picture(noise(1, 16384, 3)), tmp_path / "a.webp")
    assert not list(tmp_path.iterdir())


def test_an_image_beyond_the_limit_is_not_decoded(tmp_path) -> None:
    path = tmp_path / "bomb.png"
    Image.fromarray(noise(3, 4)).save(path)
    header = struct.pack(">II", 50_000, 50_000) + path.read_bytes()[24:29]
    whole = path.read_bytes()
    path.write_bytes(whole[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + whole[33:])
    with pytest.raises(DataError, match=r"bomb\.png: claims 50000×50000 = 2,500,000,000 pixels.*max_pixels=2500000000"):
        read_picture(path)
    assert read_picture_of(12, tmp_path).colour.shape == (3, 4, 1)
    with pytest.raises(DataError, match="above the limit of 11"):
        read_picture_of(11, tmp_path)


def read_picture_of(limit: int, folder: Path) -> Picture:
    Image.fromarray(noise(3, 4)).save(folder / "small.png")
    return read_picture(folder / "small.png", limit)


@pytest.mark.filterwarnings("error")
def test_eighty_megapixels_pass_without_a_warning(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80_000_000)
    Image.new("1", (12_000, 8_000)).save(tmp_path / "a.png")  # 96
    assert read_picture(tmp_path / "a.png").colour.shape == (8_000, 12_000, 1)
    assert Image.MAX_IMAGE_PIXELS == 80_000_000  # whoever else uses Pillow keeps the limit


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_cut_image_is_refused_or_read_but_never_crashes(kind, tmp_path) -> None:
    Image.fromarray(noise(24, 24, 3)).save(tmp_path / "whole", kind)
    whole = (tmp_path / "whole").read_bytes()
    refusals = []
    for length in range(0, len(whole) - 30, len(whole) // 20):
        (tmp_path / "cut").write_bytes(whole[:length])
        try:
            read_picture(tmp_path / "cut")
        except DataError as error:
            refusals.append(str(error))
    assert len(refusals) > 15
    assert all("cut: " in refusal for refusal in refusals)


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch) -> None:
    target = tmp_path / "a.png"
    target.write_text("mine")

    def full(image, path, **options):
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DataError, match=r"a\.png: cannot be written \(No space left on device\)"):
        write_picture(Picture(noise(2, 2, 3)), target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert target.read_text() == "mine"


def test_folders_that_cannot_be_written_to(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match="cannot be written to"):
            check_folder(folder, "token")
    check_folder(tmp_path / "new" / "folder", "token")
    assert not list((tmp_path / "new" / "folder").iterdir())


def test_only_a_runs_own_incomplete_files_are_removed(tmp_path) -> None:
    for name in (".a.png.mine.partial", ".a.png.theirs.partial", "a.png"):
        (tmp_path / name).touch()
    remove_partial(tmp_path, "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.png.theirs.partial", "a.png"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_result_is_the_models_in_the_same_depth(dtype, channels, random_model) -> None:
    model, largest = random_model(2), np.iinfo(dtype).max
    colour = noise(6, 9, channels, dtype=dtype)
    expected = through(model, np.repeat(colour, 3 // channels, axis=2) / largest)
    if channels == 1:
        expected = np.tensordot((0.299, 0.587, 0.114), expected, 1)[None]
    fractions: list[float] = []
    sr = enlarge(model, Inference(), Picture(colour, icc=b"profile"), progress=fractions.append).sr
    assert sr.colour.dtype == dtype
    assert (sr.alpha, sr.icc) == (None, b"profile")
    difference = np.abs(sr.colour.transpose(2, 0, 1) - expected.clip(0, 1) * largest)
    assert difference.max() < (0.51 if dtype == np.uint8 else 1)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_alpha_is_super_resolved_and_stays_whole_where_it_is(random_model) -> None:
    model = random_model(2)
    alpha = noise(8, 12)
    alpha[:, :5], alpha[:, 8:] = 255, 0
    fractions: list[float] = []
    picture = Picture(noise(8, 12, 3), alpha)
    result = enlarge(model, Inference(), picture, progress=fractions.append).sr
    assert (result.alpha[:, : 2 * 4] == 255).all()
    assert (result.alpha[:, 2 * 9 :] == 0).all()
    expected = np.tensordot((0.299, 0.587, 0.114), through(model, np.repeat(alpha[..., None], 3, 2) / 255), 1) * 255
    assert np.abs(result.alpha - expected.clip(0, 255))[:, 8:18].max() < 0.51
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    alone = enlarge(model, Inference(), Picture(picture.colour)).sr
    assert np.array_equal(result.colour, alone.colour)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_even_alpha_stays_even(value, random_model) -> None:
    picture = Picture(noise(4, 5, 3), np.full((4, 5), value, np.uint8))
    assert (enlarge(random_model(2), Inference(), picture).sr.alpha == value).all()


def test_leaves_and_weights_are_the_models(random_model) -> None:
    model, colour = random_model(2), noise(6, 5, 3)
    lr = torch.from_numpy(colour.transpose(2, 0, 1))[None] / 255
    with torch.no_grad():
        predictions = model.divergence(lr)
        _, weights = model.convergence(predictions)
    result = enlarge(model, Inference(), Picture(colour), parts=True)
    assert list(result.leaves) == list(result.weights) == ["11", "12", "21", "22"]
    for index, leaf in enumerate(result.leaves):
        expected = predictions[0, index].clamp(0, 1).permute(1, 2, 0).numpy() * 255
        assert np.abs(result.leaves[leaf].colour - expected).max() < 0.51
        expected = weights[0, index].unsqueeze(-1).numpy() * 255
        assert np.abs(result.weights[leaf].colour - expected).max() < 0.51
    assert enlarge(model, Inference(), Picture(colour)).leaves == {}


def test_one_pixel(random_model) -> None:
    picture = Picture(noise(1, 1, 3), noise(1, 1))
    assert enlarge(random_model(4), Inference(self_ensemble=True), picture).sr.colour.shape == (4, 4, 3)
