"""The networks of D2C-SR, as plain PyTorch: no training, no files, no configuration."""

from d2csr.models.bodies import register_body
from d2csr.models.convergence import ConvergenceNetwork
from d2csr.models.d2csr import D2CSR
from d2csr.models.divergence import DivergenceNetwork
from d2csr.models.tree import Tree

__all__ = ["D2CSR", "ConvergenceNetwork", "DivergenceNetwork", "Tree", "register_body"]
