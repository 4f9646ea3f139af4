"""Data: lists, images, datasets and the DataModule of LR/HR pairs."""
