"""Browser page to try models on images: the work of ``d2csr-app``."""
