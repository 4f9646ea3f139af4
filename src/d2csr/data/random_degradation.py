"""Random degradation of HR to LR: blur, resampling, noise and JPEG, in random order and strength.

After Zhang et al., Designing a Practical Degradation Model for Deep Blind Image Super-Resolution, ICCV 2021
(https://arxiv.org/abs/2103.14006), which draws the order of its steps, too. It works on sRGB values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from d2csr.checks import number, several_of, shown, whole_number
from d2csr.data.degradation_steps import RESAMPLING, add_noise, blur, gaussian, jpeg, resample, to_8_bits
from d2csr.errors import ConfigError

STEPS = ("blur", "resampling", "noise", "jpeg")
RANDOM = "random"
MAX_SIGMA = 8.0  # of the blur, in LR pixels: beyond it nothing is left to restore

Range = Sequence[float]


@dataclass(frozen=True)
class Blur:
    """Gaussian blur.

    Attributes:
        probability: that an image is blurred.
        sigma: least and greatest standard deviation, in LR pixels.
        anisotropic: probability that the two axes have different standard deviations, in a random direction.
    """

    probability: float = 0.9
    sigma: Range = (0.1, 0.8)
    anisotropic: float = 0.5

    def __post_init__(self) -> None:
        number("blur.probability", self.probability, least=0, most=1)
        number("blur.anisotropic", self.anisotropic, least=0, most=1)
        _range("blur.sigma", self.sigma, 0.01, MAX_SIGMA)


@dataclass(frozen=True)
class Noise:
    """Noise of each value: Gaussian of equal strength everywhere, or Poisson, stronger in bright parts.

    Attributes:
        probability: that an image gets noise.
        gaussian: least and greatest standard deviation, in levels of 255.
        electrons: of a white pixel, least and greatest number; 650 are 10 levels of noise in white.
        poisson: probability that the noise is Poisson and not Gaussian.
    """

    probability: float = 0.9
    gaussian: Range = (1.0, 10.0)
    electrons: Range = (650.0, 10_000.0)
    poisson: float = 0.5

    def __post_init__(self) -> None:
        number("noise.probability", self.probability, least=0, most=1)
        number("noise.poisson", self.poisson, least=0, most=1)
        _range("noise.gaussian", self.gaussian, 0.0, 255.0)
        _range("noise.electrons", self.electrons, 1.0, 1e9)


@dataclass(frozen=True)
class Jpeg:
    """JPEG with halved colours.

    Attributes:
        probability: that an image is compressed.
        quality: least and greatest quality of libjpeg, 1 to 100.
    """

    probability: float = 0.7
    quality: Sequence[int] = (40, 95)

    def __post_init__(self) -> None:
        number("jpeg.probability", self.probability, least=0, most=1)
        _range("jpeg.quality", self.quality, 1, 100)
        for quality in self.quality:
            whole_number("jpeg.quality", quality)


@dataclass(frozen=True)
class RandomDegradation:
    """Degradation of an HR image to an LR image.

    The blur has the same strength wherever it comes in the order. Noise before the resampling is averaged by it, over
    about s×s pixels.

    Attributes:
        order: ``random`` draws the order of the four steps; or their names, :data:`STEPS`, in a fixed order.
        resampling: filters, one of which is drawn.
        blur: settings of the blur.
        noise: settings of the noise.
        jpeg: settings of JPEG.
    """

    order: str | Sequence[str] = RANDOM
    resampling: Sequence[str] = RESAMPLING
    blur: Blur = field(default_factory=Blur)
    noise: Noise = field(default_factory=Noise)
    jpeg: Jpeg = field(default_factory=Jpeg)

    def __post_init__(self) -> None:
        several_of("resampling", self.resampling, RESAMPLING, least=1)
        if self.order != RANDOM:
            order = list(self.order) if isinstance(self.order, list | tuple) else [self.order]
            if sorted(map(str, order)) != sorted(STEPS):
                steps = ", ".join(STEPS)
                raise ConfigError(f"order: must be random, or {steps} in any order, got {shown(self.order)}.")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> RandomDegradation:
        """Build a degradation from plain values, as in the configuration.

        Raises:
            ConfigError: a name is unknown, or a value is impossible.
        """
        parts = {"blur": Blur, "noise": Noise, "jpeg": Jpeg}
        built = {name: _build(part, settings.get(name) or {}, f"{name}.") for name, part in parts.items()}
        return _build(cls, {**settings, **built}, "")

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
        height, width = (side // scale for side in hr.shape[:2])
        image = hr[: scale * height, : scale * width].astype(np.float32) / 255
        order = random.permutation(STEPS).tolist() if self.order == RANDOM else self.order
        unit = float(scale)  # an LR pixel in pixels of the image
        for step in order:
            if step == "resampling":
                method = self.resampling[int(random.integers(len(self.resampling)))]
                image, unit = resample(image, (height, width), method).clip(0.0, 1.0), 1.0
            elif step == "blur":
                image = self._blurred(image, unit, random)
            elif step == "noise":
                image = self._noisy(image, random)
            elif random.random() < self.jpeg.probability:
                low, high = self.jpeg.quality
                image = jpeg(image, int(random.integers(low, high + 1)))
        return to_8_bits(image)

    def _blurred(self, image: np.ndarray, unit: float, random: np.random.Generator) -> np.ndarray:
        if random.random() >= self.blur.probability:
            return image
        least, greatest = self.blur.sigma
        first, second = (unit * random.uniform(least, greatest) for _ in range(2))
        if random.random() >= self.blur.anisotropic:
            second = first
        return blur(image, gaussian((first, second), random.uniform(0.0, math.pi))).clip(0.0, 1.0)

    def _noisy(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        if random.random() >= self.noise.probability:
            return image
        if random.random() < self.noise.poisson:
            least, greatest = self.noise.electrons
            # Equally often in each decade, as the strength is one over the root.
            electrons = math.exp(random.uniform(math.log(least), math.log(greatest)))
            noisy = add_noise(image, random, electrons=electrons)
        else:
            least, greatest = self.noise.gaussian
            noisy = add_noise(image, random, sigma=random.uniform(least, greatest) / 255)
        return noisy.clip(0.0, 1.0)


def _build(kind: Any, settings: Any, place: str) -> Any:
    names = [one.name for one in fields(kind)]
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{place.rstrip('.') or 'degradation'}: must be settings by name, got {shown(settings)}.")
    for name in settings:
        if name not in names:
            raise ConfigError(f"{place}{name}: no such setting of the degradation; there are {', '.join(names)}.")
    return kind(**settings)


def _range(name: str, value: Any, least: float, most: float) -> None:
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(type(end) in (int, float) for end in value)
    if not pair or not least <= value[0] <= value[1] <= most:
        raise ConfigError(
            f"{name}: must be two numbers from {least:g} to {most:g}, the smaller one first, got {shown(value)}."
        )
