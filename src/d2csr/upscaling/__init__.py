"""Upscaling of image files: the work of ``d2csr-upscale``."""
