"""Export of a model to formats that run without this package, or that other programs load."""

from d2csr.exporting.exporter import FORMATS, Exported, export

__all__ = ["FORMATS", "Exported", "export"]
