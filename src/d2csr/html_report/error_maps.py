"""Errors of images in colour, on one scale for all images."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from d2csr.colormap import VIRIDIS

ERROR_LIMIT = 0.1  # the error at the top of the scale, for RGB in [0, 1]

_LEVELS = 256


def squared_error(image: Tensor, hr: Tensor) -> Tensor:
    """Return the mean over R, G and B of the squared error, H×W; both 1×3×H×W, RGB, clamped to [0, 1] as shown."""
    return (image.clamp(0, 1) - hr).square().mean(dim=1)[0]


def error_image(error: Tensor) -> Image.Image:
    """Return a squared error, H×W, as an image: its root, in inferno from 0 to :data:`ERROR_LIMIT`."""
    share = (error.sqrt() / ERROR_LIMIT).clamp(0, 1).mul(_LEVELS - 1).round()
    image = Image.fromarray(share.byte().numpy())
    image.putpalette(inferno())
    return image.convert("RGB")


def inferno() -> bytes:
    """Return R, G and B of the 256 colours of matplotlib's inferno."""
    from matplotlib import colormaps

    colours = colormaps["inferno"](np.arange(_LEVELS))[:, :3]
    return np.rint(255 * colours).astype(np.uint8).tobytes()


def css_gradient(colours: bytes, stops: int = 17) -> str:
    """Return the stops of a CSS gradient over a colour map of R, G and B in 8 bits."""
    triples = np.frombuffer(colours, np.uint8).reshape(-1, 3)
    chosen = triples[np.linspace(0, len(triples) - 1, stops).round().astype(int)]
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in chosen)


WEIGHT_GRADIENT = css_gradient(VIRIDIS)
