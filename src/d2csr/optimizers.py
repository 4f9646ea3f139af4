"""Muon for 3×3 convolutions, with AdamW for all other parameters; fused steps of these and other optimizers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from d2csr.checks import number, whole_number
from d2csr.torch_internals import foreach_lerp_, foreach_mul_, foreach_sub_

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]

# Of the polynomial a·s + b·s³ + c·s⁵ of each iteration, as in torch.optim.Muon.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class MuonWithAdamW(AdamW):
    """Optimizer that orthogonalizes the momentum of convolution kernels, as matrices out × height·width·in.

    The step is that of ``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"``, which gives an update the size of
    one of AdamW, so that both share the learning rate and the weight decay. torch's own takes no convolutions, and one
    matrix after the other; here all kernels of one shape are a batch, so that a step launches few operations. Muon:
    Jordan et al., 2024, https://kellerjordan.github.io/posts/muon. Size of the update: Liu et al., 2025,
    https://arxiv.org/abs/2502.16982.

    AdamW steps biases, 1×1 convolutions, and kernels with few channels: the first and last layers, as the authors
    of Muon advise.

    ``betas``, ``eps`` and ``fused`` are those of AdamW, ``lr`` and the decoupled ``weight_decay`` of both. The momentum
    of the kernels is Nesterov's, at least 0 and below 1. Kernels with fewer input or output channels than
    ``least_channels`` go to AdamW.

    Raises:
        ConfigError: ``momentum`` or ``least_channels`` is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        momentum: float = 0.95,
        least_channels: int = 8,
        fused: bool | None = None,
    ) -> None:
        self.momentum = number("optimizer.momentum", momentum, least=0, below=1)
        self.least_channels = whole_number("optimizer.least_channels", least_channels)
        super().__init__(params, lr, betas, eps, weight_decay, fused=fused)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step the kernels by Muon, and everything else by AdamW."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        gradients: dict[Tensor, Tensor] = {}
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None and self._is_kernel(parameter):
                    gradients[parameter] = parameter.grad
                    shapes[parameter.shape].append(parameter)
            for kernels in shapes.values():
                self._step_kernels(kernels, group["lr"], group["weight_decay"])
        for parameter in gradients:
            parameter.grad = None  # AdamW passes over parameters without a gradient
        super().step()
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        return loss

    def _is_kernel(self, parameter: Tensor) -> bool:
        shape = parameter.shape
        return len(shape) == 4 and max(shape[2:]) > 1 and min(shape[:2]) >= self.least_channels

    def _step_kernels(self, kernels: list[Tensor], lr: float | Tensor, weight_decay: float) -> None:
        """Step kernels of one shape."""
        for kernel in kernels:
            if "momentum" not in self.state[kernel]:
                # AdamW cannot load a state without a step count.
                self.state[kernel].update(step=torch.zeros(()), momentum=torch.zeros_like(kernel))
        means = [self.state[kernel]["momentum"] for kernel in kernels]
        gradients = [kernel.grad for kernel in kernels if kernel.grad is not None]
        foreach_lerp_(means, gradients, 1 - self.momentum)
        matrices = torch.stack(gradients).lerp(torch.stack(means), self.momentum).flatten(2)
        updates = orthogonalize(matrices) * (0.2 * max(matrices.shape[1:]) ** 0.5 * lr)
        foreach_mul_(kernels, 1 - lr * weight_decay)
        foreach_sub_(kernels, list(updates.view(-1, *kernels[0].shape)))


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return N×A×B matrices with their singular values moved to between about 0.7 and 1.2; zero stays zero.

    Five Newton–Schulz iterations, in float32. They need the matrix products alone, and no decomposition.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).float()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return (x.mT if tall else x).to(matrices.dtype)


# Those that torch has fused kernels for, on the CPU and on CUDA; in MuonWithAdamW for AdamW's part.
_FUSED = (Adam, AdamW, MuonWithAdamW, SGD)
_DEVICES = ("cpu", "cuda")
# Settings by which a user chooses an implementation, or that exclude the fused one.
_CHOICES = frozenset({"fused", "foreach", "capturable", "differentiable"})


def with_fused_step(factory: OptimizerFactory, device: str, precision: str) -> OptimizerFactory:
    """Let a factory build its optimizer with ``fused=True``, where that is possible and the settings do not choose.

    Under ``16-mixed`` a fused optimizer would unscale the gradients itself, after gradient clipping has seen them.

    Args:
        factory: a partial of an optimizer's class; any other callable is returned as it is.
        device: the type of the parameters' device.
        precision: of the trainer.
    """
    if not isinstance(factory, partial) or factory.func not in _FUSED or device not in _DEVICES:
        return factory
    if precision == "16-mixed" or _CHOICES & factory.keywords.keys():
        return factory
    return partial(factory, fused=True)


def move_step_counts(optimizer: Optimizer) -> None:
    """Move the step counts of a loaded state to where the optimizer needs them.

    A fused optimizer needs them on the device. Any other would wait for the device at each of them.
    """
    for group in optimizer.param_groups:
        on_device = bool(group.get("fused") or group.get("capturable"))
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if isinstance(step := state.get("step"), Tensor):
                state["step"] = step.to(parameter.device if on_device else "cpu")
