"""DDP strategy for backward passes that reach one of the two networks alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from d2csr.internals import broadcast_module
from d2csr.models import SRNetwork
from d2csr.torch_internals import foreach_copy_


class FlatReductionStrategy(DDPStrategy):
    """DDP that averages the gradients of each backward pass in one all-reduce after it.

    ``DistributedDataParallel`` reduces the gradients of all parameters in each backward pass. With a pass for each of
    the two networks it has to search for the parameters without a gradient, copies the result to the host, and sends
    23 MB for the 0.2 MB of the convergence network's gradients. Here only gradients that exist are sent.

    The module is wrapped in ``DistributedDataParallel``, with that search, in two cases: it has no network of this
    package, or its network has floating-point buffers, such as those of batch normalization, which have to stay equal
    on all ranks.

    All ranks must have gradients for the same parameters.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(find_unused_parameters=True, **settings)
        self._flat = False
        self._blocked = False

    def configure_ddp(self) -> None:
        """Copy the weights of rank 0 to all ranks, or wrap the module."""
        network = getattr(self.lightning_module, "network", None)
        self._flat = isinstance(network, SRNetwork) and not any(b.is_floating_point() for b in network.buffers())
        if not self._flat:
            super().configure_ddp()
            return
        assert self.lightning_module is not None
        broadcast_module(self.lightning_module)

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the gradients, and average them over the ranks."""
        loss = super().backward(closure_loss, optimizer, *args, **kwargs)
        if self._flat and not self._blocked:
            assert self.lightning_module is not None
            average_gradients(self.lightning_module.parameters())
        return loss

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Average nothing within this context, in which a batch is accumulated."""
        self._blocked = True
        try:
            with super().block_backward_sync():
                yield
        finally:
            self._blocked = False


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the existing gradients over all ranks, in place, in one all-reduce for each data type."""
    gradients: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            gradients[parameter.grad.dtype].append(parameter.grad)
    for share in gradients.values():
        flat = torch.cat([gradient.flatten() for gradient in share])
        flat /= dist.get_world_size()  # before the sum, which could overflow in float16
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in share])
        foreach_copy_(share, [part.view(g.shape) for part, g in zip(parts, share, strict=True)])
