"""LPIPS, the distance of two images in the features of AlexNet (Zhang et al., CVPR 2018)."""

from __future__ import annotations

from torch import Tensor, nn

from d2csr.metrics.image_metric import ImageMetric, torchvision_weights


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
    """LPIPS with AlexNet: 0 for identical images, lower is better.

    Raises:
        ConfigError: the weights cannot be downloaded or read.
    """

    name = "lpips"
    lower_is_better = True
    least_side = 31  # of the last layers of AlexNet

    def __init__(self) -> None:
        super().__init__()
        self.network = load_lpips()

    def score(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the LPIPS of one image."""
        return self.network(sr, hr, normalize=True)
