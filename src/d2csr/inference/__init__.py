"""Super-resolving images that have no ground truth."""

from d2csr.inference.upscale import upscale

__all__ = ["upscale"]
