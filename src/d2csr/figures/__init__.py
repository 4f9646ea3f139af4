"""Figures for papers: crops of an image by several methods, with scores, at an exact physical width."""

from d2csr.figures.comparison_figure import write_figure
from d2csr.figures.figure_content import Content, NamedCrop, figure_content, named_crops
from d2csr.figures.figure_layout import Style

__all__ = ["Content", "NamedCrop", "Style", "figure_content", "named_crops", "write_figure"]
