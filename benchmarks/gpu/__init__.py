"""Benchmark and acceptance test of d2csr on GPUs; ``python -m benchmarks.gpu --help``."""
