"""Results of an evaluation without a network, for the tests of what shows them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from d2csr.evaluation.report import ImageResult
from d2csr.metrics import psnr, ssim

LEAVES = ("leaf 11", "leaf 12", "leaf 21", "leaf 22")


def make_result(index: int, height: int = 96, width: int = 128, others: tuple[str, ...] = ()) -> ImageResult:
    """Return a result of scale 2 with leaves whose error differs from place to place."""
    generator = torch.Generator().manual_seed(index)
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=generator)
    hr = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    lr = F.avg_pool2d(hr, 2)
    bicubic = F.interpolate(lr, scale_factor=2, mode="bicubic")
    noise = 0.05 * torch.randn(4, *hr.shape, generator=generator)
    leaves = {name: hr + noise[number] for number, name in enumerate(LEAVES)}
    logits = torch.randn(1, 4, height // 16, width // 16, generator=generator)
    weights = torch.softmax(F.interpolate(logits, (height, width), mode="bicubic"), dim=1)
    mean = torch.stack(list(leaves.values())).mean(dim=0)
    fusion = sum(weights[:, number, None] * leaf for number, leaf in enumerate(leaves.values()))
    assert isinstance(fusion, torch.Tensor)
    images = {"bicubic": bicubic, **dict.fromkeys(others, hr + 0.02), **leaves, "mean": mean, "fusion": fusion}
    scores = {
        name: {"psnr": psnr(image, hr, scale=2).item(), "ssim": ssim(image, hr, scale=2).item()}
        for name, image in images.items()
    }
    return ImageResult(index, lr, hr, images, weights, scores)
