"""The body of SwinIR: residual Swin Transformer blocks (RSTB), then a convolution.

"SwinIR: Image Restoration Using Swin Transformer", Liang et al., ICCV Workshops 2021
(https://arxiv.org/abs/2108.10257), without its stochastic depth. The window attention is that of "Swin Transformer:
Hierarchical Vision Transformer using Shifted Windows", Liu et al., ICCV 2021 (https://arxiv.org/abs/2103.14030).

Shapes: N images of H×W pixels with F features; a window is w×w pixels; an image has V×U windows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2csr.checks import number, whole_number
from d2csr.errors import ConfigError
from d2csr.models.bodies.registry import register_body
from d2csr.models.layers import MAX_BLOCKS, conv3x3

_INITIAL_DEVIATION = 0.02  # of linear layers and position biases


class WindowAttention(nn.Module):
    """Multi-head self-attention within w×w windows, with a learned bias for each relative position; N×H×W×F.

    H and W are multiples of w. The windows move down and right by ``shift`` pixels, from 0 to w − 1. A window that
    crosses the border continues on the opposite side, and a mask separates the two parts. Only the last row and column
    of windows need a mask, so four masks are enough for every H and W.
    """

    bias_index: Tensor
    masks: Tensor

    def __init__(self, features: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(features, 3 * features)
        self.projection = nn.Linear(features, features)
        self.position_bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.position_bias, std=_INITIAL_DEVIATION)
        # Not persistent: both follow from the settings, so the state dict need not hold them.
        self.register_buffer("bias_index", _relative_positions(window), persistent=False)
        self.register_buffer("masks", _border_masks(window, shift), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attention's output for N×H×W×F."""
        n, height, width, features = x.shape
        rows, columns, size = height // self.window, width // self.window, self.window**2
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        windows = x.view(n, rows, self.window, columns, self.window, features).transpose(2, 3)
        qkv = self.qkv(windows.reshape(n * rows * columns, size, features))
        q, k, v = qkv.view(-1, size, 3, self.heads, features // self.heads).permute(2, 0, 3, 1, 4)
        windows = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(n, rows, columns).to(q.dtype))
        windows = self.projection(windows.transpose(1, 2).reshape(-1, size, features))
        windows = windows.view(n, rows, columns, self.window, self.window, features).transpose(2, 3)
        x = windows.reshape(n, height, width, features)
        return x.roll((self.shift, self.shift), dims=(1, 2)) if self.shift else x

    def _bias(self, n: int, rows: int, columns: int) -> Tensor:
        """Return the bias of the attention scores, broadcastable to NVU × heads × w² × w²."""
        bias = self.position_bias[self.bias_index].permute(2, 0, 1)
        if not self.shift:
            return bias[None]
        last_row = torch.arange(rows, device=bias.device) == rows - 1
        last_column = torch.arange(columns, device=bias.device) == columns - 1
        kinds = 2 * last_row[:, None] + 1 * last_column
        masks = self.masks[kinds.flatten()][:, None]
        return bias.masked_fill(masks, -torch.inf).repeat(n, 1, 1, 1)


class SwinTransformerLayer(nn.Module):
    """Swin Transformer layer (STL, section 3.2): window attention, then a perceptron, each added; N×H×W×F."""

    def __init__(self, features: int, heads: int, window: int, shift: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(mlp_ratio * features)
        self.attention = nn.Sequential(nn.LayerNorm(features), WindowAttention(features, heads, window, shift))
        self.mlp = nn.Sequential(
            nn.LayerNorm(features), nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, features)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add both residuals, one after the other."""
        x = x + self.attention(x)
        return x + self.mlp(x)


class ResidualSwinTransformerBlock(nn.Module):
    """RSTB (section 3.2): STLs, every second one with shifted windows, a convolution, plus the input; N×H×W×F."""

    def __init__(self, features: int, layers: int, heads: int, window: int, mlp_ratio: float) -> None:
        super().__init__()
        shifts = (0, window // 2)
        self.layers = nn.Sequential(
            *(SwinTransformerLayer(features, heads, window, shifts[i % 2], mlp_ratio) for i in range(layers))
        )
        self.convolution = conv3x3(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's residual."""
        return x + self.convolution(self.layers(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@register_body("swin")
class SwinBody(nn.Module):
    """RSTBs between two layer normalisations, then a 3×3 convolution; N×F×H×W to N×F×H×W.

    The long skip connection is left to the network around the body. SwinIR-light has 60 features, 4 groups of 6 layers
    and 6 heads.

    Any H and W: the right and bottom sides are padded by reflection to full windows, and the output is cropped.
    SwinIR pads the image instead, so outputs near these sides differ from SwinIR's unless H and W are multiples of w.

    The window grid begins at the upper left corner. So a tile must begin and end at multiples of w. It is then exact
    from groups · ⌈layers / 2⌉ · w + 2 pixels away from its borders.

    Args:
        features: F.
        groups: RSTBs.
        layers: STLs in an RSTB.
        heads: attention heads; must divide F.
        window: w, in pixels, from 2 to 32.
        mlp_ratio: width of the perceptron's hidden layer divided by F.
    """

    receptive_field: int | None = None  # depends on the position in the window grid

    def __init__(
        self,
        features: int,
        groups: int = 3,
        layers: int = 6,
        heads: int = 4,
        window: int = 8,
        mlp_ratio: float = 2.0,
    ) -> None:
        super().__init__()
        for name, value in (("groups", groups), ("layers", layers), ("heads", heads)):
            whole_number(name, value, most=MAX_BLOCKS)
        whole_number("window", window, 2, 32)  # each layer has 4w⁴ values of masks
        if features % heads:
            raise ConfigError(f"heads: must divide the number of features, {features}, got {heads}.")
        number("mlp_ratio", mlp_ratio, least=1 / features, most=64)
        self.window = window
        self.blocks = nn.Sequential(
            nn.LayerNorm(features),
            *(ResidualSwinTransformerBlock(features, layers, heads, window, mlp_ratio) for _ in range(groups)),
            nn.LayerNorm(features),
        )
        self.convolution = conv3x3(features, features)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=_INITIAL_DEVIATION)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Pad to full windows, apply the blocks and the convolution, and crop."""
        height, width = x.shape[-2:]
        rows, columns = (_reflected_indices(size, self.window, x.device) for size in (height, width))
        x = x[:, :, rows][:, :, :, columns].permute(0, 2, 3, 1)
        return self.convolution(self.blocks(x).permute(0, 3, 1, 2))[:, :, :height, :width]


def _reflected_indices(size: int, window: int, device: torch.device) -> Tensor:
    """Return the indices of a side of full windows: 0 … size − 1, then reflected, repeatedly if the side is short."""
    period = max(2 * size - 2, 1)
    indices = torch.arange((size + window - 1) // window * window, device=device) % period
    return torch.where(indices < size, indices, period - indices)


def _relative_positions(window: int) -> Tensor:
    """Return the index of the relative position of each pair of pixels of a window, w²×w²."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    down, right = (c.flatten()[:, None] - c.flatten() + window - 1 for c in (y, x))
    return down * (2 * window - 1) + right


def _border_masks(window: int, shift: int) -> Tensor:
    """Return which pixels the border separates, 4×w²×w²: for inner windows, the last column, the last row, and both."""
    beyond = torch.arange(window) >= window - shift
    down, right = (side.flatten() for side in torch.meshgrid(beyond, beyond, indexing="ij"))
    across_row, across_column = (side[:, None] != side for side in (down, right))
    return torch.stack([torch.zeros_like(across_row), across_column, across_row, across_row | across_column])
