"""How to work through one image within a memory budget.

The figures below are what PyTorch holds at the two moments that matter: the last body of the trunk, and one strip. They
were checked against measured peaks (``benchmarks/memory.py``); a tenth is added for what they leave out.
"""

from __future__ import annotations

from dataclasses import dataclass

from d2csr.errors import ConfigError
from d2csr.inference.reach import local_reach
from d2csr.models import D2CSR

MODES = ("auto", "strips", "tiles")

_MARGIN = 1.1
_KERNELS = 150 * 10**6  # compiled kernels, reordered weights, threads' stacks
# A longer strip repeats less of its halo, a shorter one stays in the processor's caches; of 4 to 64 rows, 32 were the
# fastest on a CPU (benchmarks/speed.py --strips). An image so small that more of it takes little memory is cut less.
_ROWS = 32
_LITTLE = 64 * 10**6
_TILE_STEP = 16
_WORKING_MAPS = 4  # in an RCAB: the group's input, the block's, and those of its second convolution, in and out


@dataclass(frozen=True)
class Plan:
    """What was decided.

    Attributes:
        length: LR rows of a strip.
        tile: the side of a tile in LR pixels; None where the image is worked whole, hence exactly.
        offload: features wait on the CPU and not on the model's device.
    """

    length: int
    tile: int | None = None
    offload: bool = False


@dataclass(frozen=True)
class Footprint:
    """Estimates of what one image takes on the model's device, in bytes.

    Args:
        model: the model.
        itemsize: bytes of a figure in the trunk; the fusion is reckoned in single precision at least.
        parts: predictions and weights are kept too.
        copies: of the outputs: 3 for a self-ensemble, which turns a result back and adds it to the sum.
    """

    model: D2CSR
    itemsize: int = 4
    parts: bool = False
    copies: int = 1

    def trunk(self, height: int, width: int, offload: bool = False) -> int:
        """The peak of the trunk: the path down to the last leaf, the other leaves, and the maps a block works on."""
        waiting = 0 if offload else self.model.tree.num_leaves - 1
        return self._maps(self.model.tree.depth + waiting + _WORKING_MAPS, height, width)

    def waiting(self, height: int, width: int, offload: bool = False) -> int:
        """The features of all leaves, while the strips are worked."""
        return 0 if offload else self._maps(self.model.tree.num_leaves, height, width)

    def line(self, width: int) -> int:
        """One LR row of a strip: predictions (twice, since they are stacked), weights, and the widest layer.

        That is a tail's last pixel shuffle or the fusion's second convolution, each with its input and output.
        """
        leaves = self.model.tree.num_leaves
        widest = 2 * max(self._setting("features"), self._setting("fusion_features"))
        figures = 2 * 3 * leaves + leaves + 3 + widest
        return int(_MARGIN * max(4, self.itemsize) * figures * self.model.scale**2 * width)

    def outputs(self, height: int, width: int) -> int:
        """The result on the CPU; nothing for a model on another device."""
        if next(self.model.parameters()).device.type != "cpu":
            return 0
        channels = 3 + (4 * self.model.tree.num_leaves if self.parts else 0)
        return self.copies * max(4, self.itemsize) * channels * self.model.scale**2 * height * width

    def least(self, height: int, width: int, offload: bool = False) -> int:
        """The least that image, or tile, can do with: strips of one row."""
        strip = (1 + 2 * local_reach(self.model)) * self.line(min(height, width))
        return _KERNELS + max(self.trunk(height, width, offload), self.waiting(height, width, offload) + strip)

    def _maps(self, count: int, height: int, width: int) -> int:
        return int(_MARGIN * count * self.itemsize * self._setting("features") * height * width)

    def _setting(self, name: str) -> int:
        value = self.model.settings[name]
        assert isinstance(value, int)
        return value


def make_plan(
    footprint: Footprint, height: int, width: int, budget: int, *, mode: str = "auto", tile: int | None = None
) -> Plan:
    """Choose between strips and tiles, and their size.

    Args:
        footprint: of the model.
        height: of the LR image.
        width: of the LR image.
        budget: bytes to work in.
        mode: ``auto`` takes strips wherever the trunk fits, ``strips`` even where it does not, ``tiles`` never.
        tile: the side of a tile in LR pixels; by default the largest that fits.

    Raises:
        ConfigError: the budget is too small even for the smallest tiles, or there is no such mode.
    """
    if mode not in MODES:
        raise ConfigError(f"mode: must be one of {', '.join(MODES)}, got {mode!r}.")
    outputs = footprint.outputs(height, width)
    left = budget - outputs
    on_cpu = next(footprint.model.parameters()).device.type == "cpu"
    for offload in (False,) if on_cpu else (False, True):
        if mode == "strips" or (mode == "auto" and footprint.least(height, width, offload) <= left):
            return Plan(strip_length(footprint, height, width, left, offload), offload=offload)
    side = tile or _largest_tile(footprint, height, width, left, outputs)
    return Plan(strip_length(footprint, min(side, height), min(side, width), left), side)


def strip_length(footprint: Footprint, height: int, width: int, budget: int, offload: bool = False) -> int:
    """Return how many LR rows a strip has: 32, fewer within a small budget, more where they are short."""
    line, halos = footprint.line(min(height, width)), 2 * local_reach(footprint.model)
    rows = max(_ROWS, _LITTLE // line - halos)
    room = (budget - _KERNELS - footprint.waiting(height, width, offload)) // line - halos
    return min(max(1, min(rows, room)), max(height, width))


def _largest_tile(footprint: Footprint, height: int, width: int, left: int, outputs: int) -> int:
    sides = range(_TILE_STEP, max(height, width) + _TILE_STEP, _TILE_STEP)
    fitting = [side for side in sides if footprint.least(min(side, height), min(side, width)) <= left]
    if fitting:
        return fitting[-1]
    needed = outputs + footprint.least(min(_TILE_STEP, height), min(_TILE_STEP, width))
    raise ConfigError(
        f"memory: an image of {width}×{height} takes {needed / 1e9:.2f} GB even in the smallest tiles "
        f"({outputs / 1e9:.2f} GB of it for the result), and there are {(left + outputs) / 1e9:.2f} GB."
    )
