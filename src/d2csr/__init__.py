"""D2C-SR: a divergence to convergence approach for real-world image super-resolution (Li et al., ECCV 2022)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# Loaded on first use: importing torch takes seconds, and a command's --help needs none of it.
_HOMES = {
    "export": "d2csr.exporting",
    "load_model": "d2csr.checkpoints",
    "upscale": "d2csr.inference",
    "D2CSR": "d2csr.checkpoints",
    "losses": "d2csr",
    "metrics": "d2csr",
}
__all__ = ["D2CSR", "__version__", "export", "load_model", "losses", "metrics", "upscale"]

if TYPE_CHECKING:
    from d2csr import losses, metrics
    from d2csr.checkpoints import D2CSR, load_model
    from d2csr.exporting import export
    from d2csr.inference import upscale


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    return import_module(f"{home}.{name}") if home == __name__ else getattr(import_module(home), name)
