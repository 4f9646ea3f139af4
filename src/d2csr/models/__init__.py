"""The networks of D2C-SR, as plain PyTorch: they know nothing of training, files or configuration."""

from d2csr.models.convergence import ConvergenceNetwork
from d2csr.models.d2csr import D2CSR
from d2csr.models.divergence import DivergenceNetwork
from d2csr.models.tree import Tree

__all__ = ["D2CSR", "ConvergenceNetwork", "DivergenceNetwork", "Tree"]
