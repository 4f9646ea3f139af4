"""Image quality metrics by name: LPIPS, DISTS and VIF from torchmetrics, all others from pyiqa.

Most have trained weights, which are downloaded at the first use.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d2csr.errors import ConfigError, DataError


class ImageMetric(nn.Module):
    """A metric of one image, with or without its ground truth.

    Raises:
        ConfigError: its library is missing or has no such metric, or its weights cannot be downloaded or read.
    """

    name: str  #: in tables and files
    library = "torchmetrics"  #: the package that computes it
    lower_is_better = False  #: otherwise higher is better
    least_side = 1  #: in pixels; smaller images have no score

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the score of one image, a scalar; ``sr`` and ``hr`` are 1×3×H×W, RGB, and ``sr`` is clamped to [0, 1].

        Raises:
            DataError: the image is too small, or pyiqa cannot score an image of its size.
        """
        height, width = sr.shape[-2:]
        if min(height, width) < self.least_side:
            raise DataError(
                f"{self.name}: needs images of at least {self.least_side} pixels a side, got {width}×{height}."
            )
        return self._score(sr.clamp(0, 1), hr).mean()

    def _score(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the score of one image; ``sr`` and ``hr`` are 1×3×H×W, RGB in [0, 1]."""
        raise NotImplementedError

    def description(self) -> dict[str, Any]:
        """Return the library with its version, and whether lower is better, as plain values."""
        library = f"{self.library} {import_module(self.library).__version__}"
        return {"library": library, "lower_is_better": self.lower_is_better}


@contextmanager
def torchvision_weights(metric: str, network: str, url: str) -> Iterator[None]:
    """Turn the errors of loading a network's weights, which torchvision downloads, into a ConfigError.

    The message begins with the metric that asks for them, and says where to put the file.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    try:
        yield
    # Without a network: URLError, an OSError; a broken download or file: any of the others.
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        problem = f"{path} cannot be read" if path.is_file() else f"the weights of {network} cannot be downloaded"
        raise ConfigError(
            f"{metric}: {problem} ({str(error).splitlines()[0]}). Put the file {url} at {path}, or do without "
            f"{metric.upper()}."
        ) from None


def load_lpips() -> nn.Module:
    """Return torchmetrics' LPIPS network; call it with two batches N×3×H×W and ``normalize=True`` for RGB in [0, 1].

    torchmetrics contains the weights of LPIPS; torchvision downloads those of AlexNet (244 MB).

    Raises:
        ConfigError: the weights cannot be downloaded or read; the message says where to put them.
    """
    # These imports are slow.
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    from torchvision.models import AlexNet_Weights

    with torchvision_weights("lpips", "AlexNet", AlexNet_Weights.DEFAULT.url):
        return LearnedPerceptualImagePatchSimilarity(net_type="alex").net


class LPIPS(ImageMetric):
    """LPIPS with AlexNet: 0 for identical images, lower is better."""

    name = "lpips"
    lower_is_better = True
    least_side = 31  # of the last layers of AlexNet

    def __init__(self) -> None:
        super().__init__()
        self.network = load_lpips()

    def _score(self, sr: Tensor, hr: Tensor) -> Tensor:
        return self.network(sr, hr, normalize=True)


class DISTS(ImageMetric):
    """Deep Image Structure and Texture Similarity with VGG-16 (Ding et al., TPAMI 2020): 0 for identical images.

    torchmetrics contains the weights of DISTS; torchvision downloads those of VGG-16 (528 MB).
    """

    name = "dists"
    lower_is_better = True
    least_side = 16  # four layers halve the size

    def __init__(self) -> None:
        super().__init__()
        from torchmetrics.functional.image.dists import DISTSNetwork  # torchmetrics' metric loads it for each image
        from torchvision.models import VGG16_Weights

        with torchvision_weights("dists", "VGG-16", VGG16_Weights.DEFAULT.url):
            self.network = DISTSNetwork()

    def _score(self, sr: Tensor, hr: Tensor) -> Tensor:
        return self.network(sr, hr)


class VIF(ImageMetric):
    """Visual Information Fidelity in the pixel domain (Sheikh and Bovik, TIP 2006), the mean over RGB.

    1 for identical images, higher is better. It has no weights.
    """

    name = "vif"
    least_side = 41  # of torchmetrics

    def _score(self, sr: Tensor, hr: Tensor) -> Tensor:
        from torchmetrics.functional.image import visual_information_fidelity

        return visual_information_fidelity(sr * 255, hr * 255)  # its noise has the variance 2 of 8-bit levels


class PyIQAMetric(ImageMetric):
    """A metric of pyiqa, with reference or without."""

    library = "pyiqa"

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.metric = _pyiqa_metric(name)
        self.lower_is_better = bool(self.metric.lower_better)

    def _score(self, sr: Tensor, hr: Tensor) -> Tensor:
        try:
            return self.metric(sr, hr) if self.metric.metric_mode == "FR" else self.metric(sr)
        except Exception as error:  # it has no checks of its own
            raise DataError(
                f"iqa: {self.name} cannot score an image of {sr.shape[-1]}×{sr.shape[-2]} pixels ({error})."
            ) from error


def _pyiqa_metric(name: str) -> nn.Module:
    try:
        import pyiqa

        known = name in pyiqa.list_models()
        # On a GPU from the start, one of its parts would not move with the module.
        metric = pyiqa.create_metric(name, device="cpu") if known else None
    except ImportError as error:
        raise ConfigError(
            f"iqa: {name} needs pyiqa ({error}): pip install 'd2csr[iqa]', or use {', '.join(_TORCHMETRICS)}."
        ) from error
    except Exception as error:  # any: of the network, of Hugging Face, of broken files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"iqa: the weights of {name} cannot be downloaded or read ({reason}). On a machine with a network, run "
            f"python -c \"import pyiqa; pyiqa.create_metric('{name}')\" and copy its ~/.cache/torch/hub to "
            f"{torch.hub.get_dir()}, and its ~/.cache/huggingface if there is one; or do without {name}."
        ) from error
    if metric is None:
        raise ConfigError(
            f"iqa: pyiqa has no metric {name!r}; python -c 'import pyiqa; print(pyiqa.list_models())' lists all."
        )
    return metric


_TORCHMETRICS: dict[str, type[ImageMetric]] = {metric.name: metric for metric in (LPIPS, DISTS, VIF)}


def load_metrics(names: Iterable[Any]) -> dict[str, ImageMetric]:
    """Return metrics by name.

    Raises:
        ConfigError: a name is unknown, a library is missing, or weights cannot be downloaded or read.
    """
    metrics: dict[str, ImageMetric] = {}
    for name in names:
        if not isinstance(name, str) or name in ("psnr", "ssim"):
            raise ConfigError(f"iqa: must be names such as niqe or dists, got {name!r}; PSNR and SSIM are by protocol.")
        if name not in metrics:
            metrics[name] = _TORCHMETRICS[name]() if name in _TORCHMETRICS else PyIQAMetric(name)
    return metrics
