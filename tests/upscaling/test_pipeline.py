from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from d2csr.errors import ConfigError, DataError
from d2csr.inference import Inference
from d2csr.upscaling import pipeline
from d2csr.upscaling.image_reader import ImageArray
from d2csr.upscaling.pipeline import Job, Options, read_ahead, size_check, upscale_image

PATIENCE = 10


def through(model, values: np.ndarray) -> np.ndarray:
    """H×W×3 floats in [0, 1] through the plain forward."""
    with torch.no_grad():
        return model(torch.from_numpy(values.astype(np.float32).transpose(2, 0, 1))[None])[0].numpy()


def jobs(folder: Path, count: int) -> list[Job]:
    names = [Path(f"{index}.png") for index in range(count)]
    return [Job(i, folder / name, {"sr": folder / "out" / name}) for i, name in enumerate(names, start=1)]


def test_only_the_next_image_is_read_ahead(tmp_path, monkeypatch) -> None:
    begun = [threading.Event() for _ in range(4)]
    monkeypatch.setattr(pipeline, "read_image", lambda path, *_: begun[int(path.stem)].set())
    seen = []
    for job, _ in read_ahead(jobs(tmp_path, 4), 100):
        assert all(event.wait(PATIENCE) for event in begun[: job.number + 1])  # the present one and the next
        assert not any(event.is_set() for event in begun[job.number + 1 :])
        seen.append(job.number)
    assert seen == [1, 2, 3, 4]


def test_an_image_does_not_wait_for_the_next_one_to_be_read(tmp_path, monkeypatch) -> None:
    gate, finished = threading.Event(), []

    def read(path: Path, *_: object) -> None:
        if path.stem == "1":
            gate.wait(PATIENCE)
        finished.append(path.stem)

    monkeypatch.setattr(pipeline, "read_image", read)
    images = iter(read_ahead(jobs(tmp_path, 2), 100))
    job, reading = next(images)
    reading.result()
    assert job.number == 1
    assert finished == ["0"]
    gate.set()
    assert next(images)[0].number == 2


def test_an_image_that_cannot_be_read_does_not_end_the_others(tmp_path, noise) -> None:
    (tmp_path / "0.png").touch()
    Image.fromarray(noise(3, 4)).save(tmp_path / "1.png")
    (_, broken), (_, good) = read_ahead(jobs(tmp_path, 2), 100)
    with pytest.raises(DataError, match=r"0\.png: an empty file"):
        broken.result()
    assert good.result().colour.shape == (3, 4, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 101}, "quality: must be"),
        ({"quality": "95"}, "quality"),
        ({"quality": True}, "quality: must be a whole number from 1 to 100"),
        ({"png_compression": 10}, "png_compression: must be a whole number from 0 to 9"),
        ({"max_pixels": 0}, "max_pixels: must be"),
        ({"overwrite": "yes"}, "overwrite: must be true or false"),
    ],
)
def test_options_out_of_range_are_refused(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Options(**options)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_result_is_that_of_the_model_with_the_same_bits(dtype, channels, random_model, noise) -> None:
    model, largest = random_model(2), np.iinfo(dtype).max
    colour = noise(6, 9, channels, dtype=dtype)
    expected = through(model, np.repeat(colour, 3 // channels, axis=2) / largest)
    if channels == 1:
        expected = np.tensordot((0.299, 0.587, 0.114), expected, 1)[None]
    fractions: list[float] = []
    sr = upscale_image(model, Inference(), ImageArray(colour, icc=b"profile"), progress=fractions.append)["sr"]
    assert sr.colour.dtype == dtype
    assert (sr.alpha, sr.icc) == (None, b"profile")
    difference = np.abs(sr.colour.transpose(2, 0, 1) - expected.clip(0, 1) * largest)
    assert difference.max() < (0.51 if dtype == np.uint8 else 1)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_alpha_is_super_resolved_and_constant_areas_stay_exact(random_model, noise) -> None:
    model = random_model(2)
    alpha = noise(8, 12)
    alpha[:, :5], alpha[:, 8:] = 255, 0
    fractions: list[float] = []
    image = ImageArray(noise(8, 12, 3), alpha)
    result = upscale_image(model, Inference(), image, progress=fractions.append)["sr"]
    assert (result.alpha[:, : 2 * 4] == 255).all()
    assert (result.alpha[:, 2 * 9 :] == 0).all()
    expected = np.tensordot((0.299, 0.587, 0.114), through(model, np.repeat(alpha[..., None], 3, 2) / 255), 1) * 255
    assert np.abs(result.alpha - expected.clip(0, 255))[:, 8:18].max() < 0.51
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    alone = upscale_image(model, Inference(), ImageArray(image.colour))["sr"]
    assert np.array_equal(result.colour, alone.colour)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_constant_alpha_stays_constant(value, random_model, noise) -> None:
    image = ImageArray(noise(4, 5, 3), np.full((4, 5), value, np.uint8))
    assert (upscale_image(random_model(2), Inference(), image)["sr"].alpha == value).all()


def test_leaves_and_weights_are_those_of_the_model(random_model, noise) -> None:
    model, colour = random_model(2), noise(6, 5, 3)
    lr = torch.from_numpy(colour.transpose(2, 0, 1))[None] / 255
    with torch.no_grad():
        predictions = model.divergence(lr)
        _, weights = model.convergence(predictions)
    result = upscale_image(model, Inference(), ImageArray(colour), keep_leaves=True)
    leaves = ["11", "12", "21", "22"]
    assert set(result) == {"sr", *(f"leaf{leaf}" for leaf in leaves), *(f"weight{leaf}" for leaf in leaves)}
    for index, leaf in enumerate(leaves):
        expected = predictions[0, index].clamp(0, 1).permute(1, 2, 0).numpy() * 255
        assert np.abs(result[f"leaf{leaf}"].colour - expected).max() < 0.51
        expected = weights[0, index].unsqueeze(-1).numpy() * 255
        assert np.abs(result[f"weight{leaf}"].colour - expected).max() < 0.51
    assert list(upscale_image(model, Inference(), ImageArray(colour))) == ["sr"]


def test_one_pixel(random_model, noise) -> None:
    image = ImageArray(noise(1, 1, 3), noise(1, 1))
    assert upscale_image(random_model(4), Inference(self_ensemble=True), image)["sr"].colour.shape == (4, 4, 3)


def test_an_image_beyond_the_memory_is_refused_by_its_header(tmp_path, random_model, noise) -> None:
    Image.fromarray(noise(300, 400)).save(tmp_path / "0.png")
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])  # decoding would fail
    check = size_check(random_model(2), Inference(memory="1MB"))
    [(_, reading)] = read_ahead(jobs(tmp_path, 1), 200_000, check)
    with pytest.raises(ConfigError, match="memory: an image of 400×300 needs"):
        reading.result()


def test_the_size_check_counts_the_decoded_image_and_the_result(random_model) -> None:
    model = random_model(2)
    check = size_check(model, Inference(memory="400MB", mode="tiles", tile=16))
    check(1000, 1000)  # 40 MB to decode, 48 MB for the result
    with pytest.raises(ConfigError, match=r"its result need 0\.43 GB, but 0\.40 GB"):
        check(2200, 2200)
    with pytest.raises(ConfigError, match="memory: an image of 2200×2200"):
        size_check(model, Inference(memory="900MB", mode="tiles", tile=16), keep_leaves=True)(2200, 2200)


def test_the_size_check_ignores_the_budget_for_strips(random_model) -> None:
    size_check(random_model(2), Inference(memory="1MB", mode="strips"))(200, 200)
