"""Image files in, image files out: what ``d2csr-upscale`` does."""
