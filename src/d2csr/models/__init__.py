"""The networks, as plain PyTorch: no training, no files, no configuration."""

from d2csr.models.architectures import build_network
from d2csr.models.bodies import register_body
from d2csr.models.d2csr import D2CSR, ConvergenceNetwork, DivergenceNetwork
from d2csr.models.ensemble import PathEnsemble
from d2csr.models.sr_network import SRNetwork
from d2csr.models.tree import Tree

__all__ = [
    "D2CSR",
    "ConvergenceNetwork",
    "DivergenceNetwork",
    "PathEnsemble",
    "SRNetwork",
    "Tree",
    "build_network",
    "register_body",
]
