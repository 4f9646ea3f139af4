"""The bodies of the divergence tree, one in each file; each registers itself."""

from d2csr.models.bodies import edsr, imdn, nafnet, rcab, rrdb, swin  # noqa: F401 - the import registers them
from d2csr.models.bodies.registry import BODIES, build_body, complete_settings, register_body

__all__ = ["BODIES", "build_body", "complete_settings", "register_body"]
