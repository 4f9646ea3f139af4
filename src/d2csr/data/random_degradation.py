"""Random degradation of HR to LR: blur, resampling, noise and JPEG, in random order and strength.

After Zhang et al., Designing a Practical Degradation Model for Deep Blind Image Super-Resolution, ICCV 2021
(https://arxiv.org/abs/2103.14006), which draws the order of its steps, too. It works on sRGB values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from d2csr.checks import number, several_of, shown, whole_number
from d2csr.data.degradation import RESAMPLING, add_noise, blur, gaussian, jpeg, resample, to_8_bits
from d2csr.errors import ConfigError

STEPS = ("blur", "resampling", "noise", "jpeg")
RANDOM = "random"
MAX_SIGMA = 8.0  # of the blur, in LR pixels: beyond it nothing is left to restore

#: Defaults of the settings. Of two values, the first is the least and the second the greatest that is drawn.
DEFAULTS: dict[str, Any] = {
    "order": RANDOM,  # the order of the four steps is drawn; or their names, STEPS, in a fixed order
    "resampling": RESAMPLING,  # filters, one of which is drawn
    "blur": {
        "probability": 0.9,  # that an image is blurred
        "sigma": (0.1, 0.8),  # standard deviation of the Gaussian, in LR pixels
        "anisotropic": 0.5,  # probability that the two axes have different ones, in a random direction
    },
    "noise": {
        "probability": 0.9,  # that an image gets noise
        "gaussian": (1.0, 10.0),  # standard deviation, in levels of 255, everywhere
        "electrons": (650.0, 10_000.0),  # of a white pixel, for Poisson noise; 650 are 10 levels of noise in white
        "poisson": 0.5,  # probability that the noise is Poisson, stronger in bright parts, and not Gaussian
    },
    "jpeg": {
        "probability": 0.7,  # that an image is compressed, with halved colours
        "quality": (40, 95),  # of libjpeg
    },
}
# Of two values; all others are probabilities.
_LIMITS = {"sigma": (0.01, MAX_SIGMA), "gaussian": (0, 255), "electrons": (1, 1e9), "quality": (1, 100)}


class RandomDegradation:
    """Degradation of an HR image to an LR image.

    The blur has the same strength wherever it comes in the order. Noise before the resampling is averaged by it, over
    about s×s pixels.

    Args:
        settings: plain values that differ from :data:`DEFAULTS`.

    Attributes:
        settings: all settings.

    Raises:
        ConfigError: a name is unknown, or a value is impossible.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = _merged(DEFAULTS, settings, "")
        for step in ("blur", "noise", "jpeg"):
            self.settings[step] = _merged(DEFAULTS[step], self.settings[step] or {}, f"{step}.")
            for name, value in self.settings[step].items():
                if name in _LIMITS:
                    _check_range(f"{step}.{name}", value, *_LIMITS[name])
                else:
                    number(f"{step}.{name}", value, least=0, most=1)
        for quality in self.settings["jpeg"]["quality"]:
            whole_number("jpeg.quality", quality)
        several_of("resampling", self.settings["resampling"], RESAMPLING, least=1)
        order = self.settings["order"]
        steps = list(order) if isinstance(order, list | tuple) else [order]
        if order != RANDOM and sorted(map(str, steps)) != sorted(STEPS):
            raise ConfigError(f"order: must be random, or {', '.join(STEPS)} in any order, got {shown(order)}.")

    def __call__(self, hr: np.ndarray, scale: int, random: np.random.Generator) -> np.ndarray:
        """Degrade an image; what is drawn follows from ``random`` and the size of the image alone.

        Args:
            hr: H×W×3, uint8, sRGB, at least ``scale`` pixels a side. Rows and columns beyond a multiple of ``scale``
                are dropped.
            scale: s.
            random: source of order, strengths and noise.

        Returns:
            LR, H/s×W/s×3, uint8, aligned with HR without a shift.
        """
        settings = self.settings
        height, width = (side // scale for side in hr.shape[:2])
        image = hr[: scale * height, : scale * width].astype(np.float32) / 255
        order = random.permutation(STEPS).tolist() if settings["order"] == RANDOM else settings["order"]
        unit = float(scale)  # an LR pixel in pixels of the image
        for step in order:
            if step == "resampling":
                method = settings["resampling"][int(random.integers(len(settings["resampling"])))]
                image, unit = resample(image, (height, width), method).clip(0.0, 1.0), 1.0
            elif random.random() >= settings[step]["probability"]:
                continue
            elif step == "blur":
                image = _blurred(image, unit, random, settings["blur"])
            elif step == "noise":
                image = _noisy(image, random, settings["noise"])
            else:
                low, high = settings["jpeg"]["quality"]
                image = jpeg(image, int(random.integers(low, high + 1)))
        return to_8_bits(image)


def _blurred(image: np.ndarray, unit: float, random: np.random.Generator, settings: Mapping[str, Any]) -> np.ndarray:
    first, second = (unit * random.uniform(*settings["sigma"]) for _ in range(2))
    if random.random() >= settings["anisotropic"]:
        second = first
    return blur(image, gaussian((first, second), random.uniform(0.0, math.pi))).clip(0.0, 1.0)


def _noisy(image: np.ndarray, random: np.random.Generator, settings: Mapping[str, Any]) -> np.ndarray:
    if random.random() < settings["poisson"]:
        # Equally often in each decade, as the strength is one over the root.
        least, greatest = map(math.log, settings["electrons"])
        return add_noise(image, random, electrons=math.exp(random.uniform(least, greatest))).clip(0.0, 1.0)
    return add_noise(image, random, sigma=random.uniform(*settings["gaussian"]) / 255).clip(0.0, 1.0)


def _merged(defaults: Mapping[str, Any], settings: Any, place: str) -> dict[str, Any]:
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{place.rstrip('.') or 'degradation'}: must be settings by name, got {shown(settings)}.")
    for name in settings:
        if name not in defaults:
            raise ConfigError(f"{place}{name}: no such setting of the degradation; there are {', '.join(defaults)}.")
    return {**defaults, **settings}


def _check_range(name: str, value: Any, least: float, most: float) -> None:
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(type(end) in (int, float) for end in value)
    if not pair or not least <= value[0] <= value[1] <= most:
        raise ConfigError(
            f"{name}: must be two numbers from {least:g} to {most:g}, the smaller one first, got {shown(value)}."
        )
