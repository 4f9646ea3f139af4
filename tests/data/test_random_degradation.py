"""Random degradation: order, strengths, alignment, and impossible settings."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from d2csr.checks import SCALES
from d2csr.data import random_degradation
from d2csr.data.random_degradation import STEPS, RandomDegradation
from d2csr.errors import ConfigError

OFF = {"blur": {"probability": 0.0}, "noise": {"probability": 0.0}, "jpeg": {"probability": 0.0}}
AREA = {**OFF, "resampling": ["area"]}


def degraded(image: np.ndarray, settings: dict[str, Any], scale: int = 4, seed: int = 0) -> np.ndarray:
    return RandomDegradation(settings)(image, scale, np.random.default_rng(seed))


@pytest.mark.parametrize("scale", SCALES)
def test_without_other_steps_it_is_the_mean_of_each_block(noise, scale: int) -> None:
    image = noise(6 * scale + 1, 5 * scale + scale - 1)  # the rest of the rows and columns is dropped
    blocks = image[: 6 * scale, : 5 * scale].reshape(6, scale, 5, scale, 3).mean(axis=(1, 3))
    lr = degraded(image, AREA, scale)
    assert (lr.shape, lr.dtype) == ((6, 5, 3), np.uint8)
    assert np.abs(lr - blocks).max() < 0.51


@pytest.mark.parametrize("seed", range(6))
def test_a_spot_is_not_shifted(seed: int) -> None:
    rows, columns = np.indices((96, 96))
    spot = 30 + 200 * np.exp(-((rows - 45.3) ** 2 + (columns - 51.1) ** 2) / (2 * 9.0**2))
    image = np.repeat(np.rint(spot)[..., None], 3, axis=2).astype(np.uint8)
    lr = degraded(image, {"blur": {"probability": 1.0}, "noise": {"gaussian": [0.0, 1.0], "poisson": 0.0}}, 4, seed)
    weight = np.where(lr[..., 1] > 60, lr[..., 1] - 30.0, 0.0)
    y, x = ((weight * place).sum() / weight.sum() for place in np.indices(weight.shape))
    assert 4 * (y + 0.5) - 0.5 == pytest.approx(45.3, abs=0.3)
    assert 4 * (x + 0.5) - 0.5 == pytest.approx(51.1, abs=0.3)


@pytest.mark.parametrize("order", [["blur", "resampling", "noise", "jpeg"], ["resampling", "jpeg", "noise", "blur"]])
def test_the_blur_is_measured_in_lr_pixels_wherever_it_comes(order: list[str]) -> None:
    edge = np.full((128, 128, 3), 60, np.uint8)
    edge[:, 64:] = 190
    blur = {"probability": 1.0, "sigma": [1.5, 1.5], "anisotropic": 0.0}
    profile = degraded(edge, {**AREA, "blur": blur, "order": order})[16, :, 1].astype(float)
    ideal = ndimage.gaussian_filter1d(np.repeat([60.0, 190.0], 16), 1.5)
    assert np.abs(profile - ideal).max() < 3


def test_strengths_and_filters_are_drawn_from_their_ranges(noise, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, list[Any]] = {"gaussian": [], "noise": [], "jpeg": [], "resample": []}
    gaussian, add_noise, jpeg, resample = (
        getattr(random_degradation, name) for name in ("gaussian", "add_noise", "jpeg", "resample")
    )

    def record(name: str, function: Any, value: Any) -> Any:
        return lambda *args, **kwargs: (calls[name].append(value(*args, **kwargs)), function(*args, **kwargs))[1]

    monkeypatch.setattr(random_degradation, "gaussian", record("gaussian", gaussian, lambda sigmas, angle: sigmas))
    monkeypatch.setattr(random_degradation, "add_noise", record("noise", add_noise, lambda image, random, **how: how))
    monkeypatch.setattr(random_degradation, "jpeg", record("jpeg", jpeg, lambda image, quality: quality))
    monkeypatch.setattr(random_degradation, "resample", record("resample", resample, lambda image, size, how: how))
    settings = {
        "order": ["resampling", "blur", "noise", "jpeg"],
        "blur": {"probability": 0.8, "sigma": [0.2, 0.7], "anisotropic": 0.25},
        "noise": {"probability": 0.6, "gaussian": [2.0, 4.0], "electrons": [100.0, 10_000.0], "poisson": 0.5},
        "jpeg": {"probability": 0.3, "quality": [50, 52]},
    }
    image = noise(16, 16)
    for seed in range(800):
        degraded(image, settings, 2, seed)
    assert Counter(calls["jpeg"]).keys() == {50, 51, 52}
    counts = [len(calls[name]) / 800 for name in ("gaussian", "noise", "jpeg")]
    np.testing.assert_allclose(counts, (0.8, 0.6, 0.3), atol=0.06)
    assert all(0.2 <= sigma <= 0.7 for pair in calls["gaussian"] for sigma in pair)
    assert np.mean([first != second for first, second in calls["gaussian"]]) == pytest.approx(0.25, abs=0.06)
    poisson = [how["electrons"] for how in calls["noise"] if "electrons" in how]
    assert len(poisson) / len(calls["noise"]) == pytest.approx(0.5, abs=0.08)
    assert min(poisson) >= 100
    assert max(poisson) <= 10_000
    assert np.mean(np.array(poisson) < 1000) == pytest.approx(0.5, abs=0.1)  # as many in each decade
    sigmas = [255 * how["sigma"] for how in calls["noise"] if "sigma" in how]
    assert (round(min(sigmas), 1), round(max(sigmas), 1)) == (2.0, 4.0)
    assert Counter(calls["resample"]).keys() == {"area", "bilinear", "bicubic"}


def test_a_random_order_has_all_orders(noise, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"blur": "blur", "add_noise": "noise", "jpeg": "jpeg", "resample": "resampling"}
    orders, steps = Counter(), []
    for name, step in names.items():
        function = getattr(random_degradation, name)
        monkeypatch.setattr(
            random_degradation,
            name,
            lambda *args, function=function, step=step, **kwargs: (steps.append(step), function(*args, **kwargs))[1],
        )
    settings = {name: {"probability": 1.0} for name in ("blur", "noise", "jpeg")}
    image = noise(8, 8)
    for seed in range(400):
        steps.clear()
        degraded(image, settings, 2, seed)
        orders[tuple(steps)] += 1
    assert len(orders) == 24
    assert max(orders.values()) < 40  # 17 on average
    assert all(sorted(order) == sorted(STEPS) for order in orders)


def test_noise_before_the_resampling_is_averaged() -> None:
    flat = np.full((400, 400, 3), 128, np.uint8)
    noise = {"probability": 1.0, "gaussian": [8.0, 8.0], "poisson": 0.0}
    first = degraded(flat, {**AREA, "noise": noise, "order": ["noise", "resampling", "blur", "jpeg"]})
    last = degraded(flat, {**AREA, "noise": noise, "order": ["resampling", "blur", "jpeg", "noise"]})
    assert last.std() == pytest.approx(8, rel=0.03)
    assert first.std() == pytest.approx(2, rel=0.05)


def test_the_result_follows_from_the_generator(noise) -> None:
    image = noise(40, 40)
    np.testing.assert_array_equal(degraded(image, {}, seed=3), degraded(image, {}, seed=3))
    assert (degraded(image, {}, seed=3) != degraded(image, {}, seed=4)).mean() > 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blurr": {}}, "blurr: no such setting of the degradation; there are order, resampling, blur, noise, jpeg."),
        ({"blur": {"sigmas": [1, 2]}}, "blur.sigmas: no such setting"),
        ({"blur": [1, 2]}, "blur: must be settings by name"),
        (
            {"blur": {"sigma": [0.0, 1.0]}},
            "blur.sigma: must be two numbers from 0.01 to 8, the smaller one first, got [0.0",
        ),
        ({"blur": {"sigma": [1.0, 9.0]}}, "blur.sigma: must be two numbers from 0.01 to 8, the smaller one first"),
        ({"blur": {"sigma": [2.0, 1.0]}}, "blur.sigma: must be two numbers"),
        ({"blur": {"sigma": 1.0}}, "blur.sigma: must be two numbers from 0.01 to 8, the smaller one first, got 1.0."),
        ({"blur": {"anisotropic": -0.1}}, "blur.anisotropic: must be a number at least 0"),
        ({"noise": {"probability": 1.5}}, "noise.probability: must be a number at least 0 and at most 1, got 1.5."),
        ({"noise": {"gaussian": [1, 300]}}, "noise.gaussian: must be two numbers from 0 to 255"),
        ({"noise": {"electrons": [0, 10]}}, "noise.electrons: must be two numbers from 1 to 1e+09"),
        ({"noise": {"electrons": [10, float("nan")]}}, "noise.electrons: must be two numbers"),
        ({"jpeg": {"quality": [0, 50]}}, "jpeg.quality: must be two numbers from 1 to 100"),
        ({"jpeg": {"quality": [50, 101]}}, "jpeg.quality: must be two numbers from 1 to 100"),
        ({"jpeg": {"quality": [50.5, 60]}}, "jpeg.quality: must be a whole number"),
        ({"resampling": []}, "resampling: must be of area, bilinear, bicubic, got nothing"),
        ({"resampling": ["lanczos"]}, "resampling: must be of area, bilinear, bicubic, got lanczos"),
        ({"order": "shuffled"}, "order: must be random, or blur, resampling, noise, jpeg in any order"),
        ({"order": ["blur", "blur", "noise", "jpeg"]}, "order: must be random"),
    ],
)
def test_an_impossible_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        RandomDegradation(settings)
    assert str(error.value).startswith(message)
