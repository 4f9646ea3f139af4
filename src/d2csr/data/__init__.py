"""LR/HR pairs on disk: lists of them, their images, and the batches made of them."""
