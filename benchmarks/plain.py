"""Plain training loop, the baseline of ``speed.py``: ordinary PyTorch, in float32 and the default memory layout.

It follows the official training: two Adams; a step of the divergence network, a second forward pass of it, a step of
the convergence network. As in the PyTorch port (https://github.com/esw0116/D2C-SR-Pytorch, train.py), the second
forward pass is recorded and not detached: the backward pass of the convergence loss also computes gradients of the
divergence network, which are never used. ``detached=True`` removes this defect.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from d2csr.models import D2CSR


class PlainLoop:
    """One network and two Adams, without optimizations.

    Args:
        settings: of :class:`d2csr.models.D2CSR`.
        device: where to train.
        weight: of the divergence loss; it is 0 in most epochs.
        detached: end the backward pass of the convergence loss at the predictions.
        lr: the learning rate.
        seed: of the initial weights.
    """

    def __init__(
        self,
        settings: dict,
        device: str,
        weight: float = 0.0,
        detached: bool = False,
        lr: float = 1e-4,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.network = D2CSR(**settings).to(device, memory_format=torch.contiguous_format)
        self.divergence_adam = torch.optim.Adam(self.network.divergence.parameters(), lr=lr, weight_decay=1e-8)
        self.convergence_adam = torch.optim.Adam(self.network.convergence.parameters(), lr=lr, weight_decay=1e-8)
        self.weight = weight
        self.detached = detached

    def step(self, lr: Tensor, hr: Tensor) -> None:
        """Train on a batch, N×3×H×W and N×3×sH×sW."""
        self.divergence_adam.zero_grad()
        leaves = self.network.divergence(lr).unbind(1)
        loss = sum(F.mse_loss(leaf, hr) for leaf in leaves)
        if self.weight:
            loss = loss + triplet_loss(leaves, hr, self.weight)
        loss.backward()
        self.divergence_adam.step()

        self.convergence_adam.zero_grad()
        predictions = self.network.divergence(lr)
        sr, _ = self.network.convergence(predictions.detach() if self.detached else predictions)
        F.mse_loss(sr, hr).backward()
        self.convergence_adam.step()

    @torch.no_grad()
    def infer(self, lr: Tensor) -> Tensor:
        """Return the fused image of a whole LR image."""
        return self.network(lr)

    @torch.no_grad()
    def validate(self, lr: Tensor, hr: Tensor) -> tuple[float, float]:
        """Return PSNR and SSIM of an image by the official protocol, except for its channel order."""
        sr = self.network(lr)
        luma = torch.tensor([65.738, 129.057, 25.064], device=lr.device).view(1, 3, 1, 1) / 256
        s = self.network.scale
        error = ((sr.clamp(0, 1) - hr.clamp(0, 1)) * luma).sum(1)[..., s:-s, s:-s]
        psnr = -10 * torch.log10(error.square().mean())
        return psnr.item(), ssim((sr * luma).sum(1, keepdim=True), (hr * luma).sum(1, keepdim=True)).item()


def triplet_loss(leaves: tuple[Tensor, ...], hr: Tensor, weight: float) -> Tensor:
    """Return the divergence loss of the four leaves 11, 12, 21, 22, pair by pair."""

    def standardised(image: Tensor) -> Tensor:
        grey = image.mean(1, keepdim=True)
        return (grey - grey.mean()) / grey.std(correction=0)

    distances = [(standardised(leaf) - standardised(hr)).abs() for leaf in leaves]
    total = hr.new_zeros(())
    for k, own in enumerate(distances):
        for j, other in enumerate(distances):
            if k != j:
                siblings = k // 2 == j // 2
                term = own.square().mean() - (own - other).square().mean() + (2e-5 if siblings else 5e-5)
                total = total + term.clamp_min(0) * (0.8 if siblings else 1.0)
    return weight * total / 12


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Return the SSIM of N×1×H×W with an 11×11 Gaussian window, zero padding, and the range 1."""
    steps = torch.arange(11, device=first.device) - 5.0
    row = torch.exp(-(steps**2) / (2 * 1.5**2))
    window = (row[:, None] * row[None, :] / row.sum() ** 2).view(1, 1, 11, 11)

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(image, window, padding=5)

    mean1, mean2 = blur(first), blur(second)
    var1, var2 = blur(first**2) - mean1**2, blur(second**2) - mean2**2
    cov = blur(first * second) - mean1 * mean2
    c1, c2 = 0.01**2, 0.03**2
    return (((2 * mean1 * mean2 + c1) * (2 * cov + c2)) / ((mean1**2 + mean2**2 + c1) * (var1 + var2 + c2))).mean()
