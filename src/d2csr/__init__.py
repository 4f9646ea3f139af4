"""D2C-SR: a divergence to convergence approach for real-world image super-resolution (Li et al., ECCV 2022)."""

__version__ = "0.1.0"
