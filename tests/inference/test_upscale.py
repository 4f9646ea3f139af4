from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import d2csr
from d2csr.errors import ConfigError

SCALES = (2, 3, 4, 8)


@pytest.fixture
def model(random_model):
    return random_model(2)


def expected_of(model, array: np.ndarray) -> np.ndarray:
    """The clamped plain forward of an H×W×3 array of floats."""
    lr = torch.from_numpy(array.transpose(2, 0, 1).astype(np.float32))[None]
    with torch.no_grad():
        return model(lr).clamp(0, 1)[0].permute(1, 2, 0).numpy()


def random_bytes(height: int = 9, width: int = 14) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_bytes_and_pil(model) -> None:
    image = random_bytes()
    before = image.copy()
    expected = np.rint(expected_of(model, image / 255) * 255)
    result = d2csr.upscale(model, image)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert np.abs(result - expected).max() <= 1  # a value halfway between two may round either way
    assert (result != expected).mean() < 0.01
    from_pil = d2csr.upscale(model, Image.fromarray(image))
    assert from_pil.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(from_pil), result)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_an_image_of_another_mode_is_converted(mode, model) -> None:
    image = Image.fromarray(random_bytes()).convert(mode)
    result = d2csr.upscale(model, image)
    assert (result.mode, result.size) == ("RGB", (28, 18))
    np.testing.assert_array_equal(np.asarray(result), np.asarray(d2csr.upscale(model, image.convert("RGB"))))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_of_floats(dtype, model) -> None:
    image = (random_bytes() / 255).astype(dtype)
    before = image.copy()
    result = d2csr.upscale(model, image)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected_of(model, image), atol=1e-3 if dtype == np.float16 else 1e-5)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("shape", [(3, 6, 7), (1, 3, 6, 7), (2, 3, 6, 7)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors(shape, dtype, model) -> None:
    image = torch.rand(shape).to(dtype)
    before = image.clone()
    result = d2csr.upscale(model, image)
    assert result.dtype == dtype
    assert result.shape == (*shape[:-2], 12, 14)
    with torch.no_grad():
        expected = model(image.float().view(-1, 3, 6, 7)).clamp(0, 1).view(result.shape).to(dtype)
    torch.testing.assert_close(result, expected, atol=1e-5 if dtype.itemsize > 2 else 1e-2, rtol=0)
    assert torch.equal(image, before)


def test_clamped_to_the_range(model) -> None:
    with torch.no_grad():
        model.divergence.output_shift.bias.copy_(torch.tensor([-9.0, 0.5, 9.0]))
    result = d2csr.upscale(model, random_bytes())
    assert set(np.unique(result[..., 0])) == {0}
    assert set(np.unique(result[..., 2])) == {255}
    floats = d2csr.upscale(model, torch.rand(3, 5, 5))
    assert floats.min() == 0
    assert floats.max() == 1


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale(scale, random_model) -> None:
    assert d2csr.upscale(random_model(scale), random_bytes(1, 1)).shape == (scale, scale, 3)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((0, 4, 3), np.uint8),
        torch.zeros(4, 4),
        torch.zeros(1, 4, 4),
        torch.zeros(3, 4, 4, dtype=torch.uint8),
        torch.zeros(3, 0, 4),
    ],
    ids=lambda image: f"{image.dtype}{tuple(image.shape)}",
)
def test_other_arrays_than_rgb_images_are_refused(image, model) -> None:
    with pytest.raises(ValueError, match=r"expected .*H×W.*floats in \[0, 1\], got"):
        d2csr.upscale(model, image)


@pytest.mark.parametrize("mode", ["F", "I", "I;16"])
def test_a_pil_image_of_unknown_range_is_refused(mode, model) -> None:
    with pytest.raises(ValueError, match=f"mode {mode} has an unknown range"):
        d2csr.upscale(model, Image.new(mode, (4, 4)))


def test_another_type_than_an_image_is_refused(model) -> None:
    with pytest.raises(TypeError, match="got str"):
        d2csr.upscale(model, "photo.png")


def test_options_are_passed_to_the_inference(model) -> None:
    image = torch.rand(3, 6, 8)
    plain = d2csr.upscale(model, image)
    assert not torch.equal(d2csr.upscale(model, image, self_ensemble=True), plain)
    assert not torch.equal(d2csr.upscale(model, image, precision="bf16"), plain)
    seen: list[float] = []
    d2csr.upscale(model, image, memory="1GB", progress=seen.append)
    assert seen[-1] == 1
    for wrong in ({"memory": "lots"}, {"mode": "blocks"}, {"tile": 0}, {"precision": "8"}):
        with pytest.raises(ConfigError):
            d2csr.upscale(model, image, **wrong)
