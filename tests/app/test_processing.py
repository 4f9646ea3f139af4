from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import d2csr
from d2csr.app.job_queue import Job, RequestError
from d2csr.app.processing import Limits, NamedModel, check_upload, enlarged, in_16_bits, named_errors, process
from d2csr.errors import ConfigError
from d2csr.inference import Inference
from d2csr.models.ensemble import PathEnsemble
from d2csr.upscaling.image_reader import ImageArray, read_image

MEMORY = "2GB"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("photo.png", 0, keep_leaves=False, folder=tmp_path)


def picture(height: int, width: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)
    return Image.fromarray(pixels, mode)


def run(job: Job, model: d2csr.D2CSR, inference: Inference | None = None) -> list[float]:
    fractions: list[float] = []
    process(job, fractions.append, [NamedModel("m", model)], inference or Inference(MEMORY), 10**6)
    return fractions


def test_the_result_is_that_of_upscale_in_16_bits(job: Job, random_model) -> None:
    model = random_model(2)
    lr = picture(21, 34)
    lr.save(job.source, "PNG")
    fractions = run(job, model)
    expected = d2csr.upscale(model, np.asarray(lr) / np.float32(255), memory=MEMORY)
    sr = read_image(job.folder / "sr.png").colour
    assert sr.dtype == np.uint16
    assert job.size == (68, 42)
    np.testing.assert_array_equal(sr, np.rint(expected * 65535).astype(np.uint16))
    assert len(np.unique(sr // 257 * 257 - sr)) > 1  # not 8 bits in 16
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert job.files == ["lr", "bicubic", "sr"]


def test_leaves_and_weights_are_those_of_the_network(job: Job, random_model, plain) -> None:
    model = random_model(4)
    lr = picture(9, 12)
    lr.save(job.source, "PNG")
    job.keep_leaves = True
    run(job, model)
    _, predictions, weights = plain(model, torch.from_numpy(np.asarray(lr) / np.float32(255)).permute(2, 0, 1)[None])
    for index, leaf in enumerate(model.tree.leaves):
        written = read_image(job.folder / f"leaf{leaf}.png").colour.astype(float)
        expected = predictions[0, index].clamp(0, 1).permute(1, 2, 0).numpy() * 65535
        assert np.abs(written - expected).max() <= 1
        values = np.asarray(Image.open(job.folder / f"weight{leaf}.png")).astype(float)
        assert np.abs(values - weights[0, index].numpy() * 255).max() <= 1
    assert set(job.files) >= {"leaf11", "leaf22", "weight11", "weight22"}


def test_a_network_of_a_single_path_has_no_leaves_to_show(job: Job) -> None:
    picture(8, 8).save(job.source, "PNG")
    job.keep_leaves = True
    run(job, PathEnsemble(2, 8, {"name": "edsr", "blocks": 1}).eval())
    assert job.files == ["lr", "bicubic", "sr"]


def test_grey_stays_grey_and_transparency_stays(job: Job, random_model) -> None:
    picture(8, 8, "L").save(job.source, "PNG")
    run(job, random_model(2))
    assert {read_image(job.folder / f"{name}.png").colour.shape[2] for name in ("lr", "bicubic", "sr")} == {1}
    picture(8, 8, "RGBA").save(job.source, "PNG")
    run(job, random_model(2))
    for name in ("lr", "bicubic", "sr"):
        alpha = read_image(job.folder / f"{name}.png").alpha
        assert alpha is not None
        assert alpha.dtype == np.uint16


def test_16_bit_input_is_kept_exactly() -> None:
    deep = ImageArray(np.array([[[1, 258, 65535]]], np.uint16))
    assert in_16_bits(deep) is deep
    shallow = in_16_bits(ImageArray(np.array([[[0, 128, 255]]], np.uint8), np.array([[255]], np.uint8)))
    assert shallow.colour.tolist() == [[[0, 128 * 257, 65535]]]
    assert shallow.alpha is not None
    assert shallow.alpha.tolist() == [[65535]]


def test_bicubic_is_that_of_pillow() -> None:
    values = np.random.default_rng(1).integers(0, 65536, (14, 11, 1), dtype=np.uint16)
    pillow = Image.fromarray(values[..., 0].astype(np.float32), "F").resize((44, 56), Image.Resampling.BICUBIC)
    expected = np.asarray(pillow).clip(0, 65535)
    assert np.abs(enlarged(ImageArray(values), 4).colour[..., 0].astype(float) - expected).max() <= 1


def test_a_large_image_is_computed_in_tiles_with_a_remark(job: Job, random_model) -> None:
    picture(64, 64).save(job.source, "PNG")
    run(job, random_model(2), Inference(MEMORY, mode="tiles", tile=32))
    assert "tiles of 32 pixels" in job.notes[0]
    picture(16, 16).save(job.source, "PNG")
    job.notes.clear()
    run(job, random_model(2), Inference(MEMORY))
    assert not job.notes


def test_an_image_beyond_the_memory_is_refused_before_it_is_decoded(job: Job, random_model, monkeypatch) -> None:
    Image.new("RGB", (900, 900)).save(job.source, "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(RequestError, match=r"photo.png: memory: an image of 900×900 .* are available") as refused:
        run(job, random_model(4), Inference("20MB"))
    assert str(job.folder) not in str(refused.value)


@pytest.mark.parametrize("cut", [0, 40, 300])
def test_a_broken_image_is_named_without_its_path(job: Job, random_model, cut: int) -> None:
    picture(32, 32).save(job.source, "PNG")
    job.source.write_bytes(job.source.read_bytes()[:cut])
    with pytest.raises(RequestError, match=r"^photo\.png: ") as refused:
        run(job, random_model(2))
    assert str(job.folder) not in str(refused.value)
    assert "upload" not in str(refused.value)


def test_the_header_is_checked_before_the_queue(job: Job) -> None:
    picture(10, 20).save(job.source, "PNG")
    check_upload(job, 200)
    with pytest.raises(RequestError, match=r"photo.png: 20×10 = 200 pixels, above the limit of 199") as refused:
        check_upload(job, 199)
    assert refused.value.status == 413
    job.source.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # Pillow would start Ghostscript
    with pytest.raises(RequestError, match=r"photo\.png: not an image that can be read"):
        check_upload(job, 200)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk of the server is full"),
    ],
)
def test_a_lack_of_memory_or_disk_is_named(job: Job, error: Exception, message: str) -> None:
    with pytest.raises(RequestError, match=rf"^photo\.png: {message}"), named_errors(job):
        raise error


def test_a_defect_of_the_program_stays_one(job: Job) -> None:
    with pytest.raises(ZeroDivisionError), named_errors(job):
        raise ZeroDivisionError


@pytest.mark.parametrize("limits", [{"max_pixels": 0}, {"max_megabytes": 1.5}, {"queue": 0}])
def test_limits_out_of_range_are_refused(limits: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(limits))):
        Limits(**{"max_pixels": 10_000, "max_megabytes": 1, "queue": 10, **limits})
