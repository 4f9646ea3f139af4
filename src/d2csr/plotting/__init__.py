"""Training curves as pictures, from the rows that a training logged."""

from d2csr.plotting.curves import FORMATS, draw_curves, write_figure
from d2csr.plotting.run_log import RunLog, find_logs, read_run_log, shortest_names

__all__ = [
    "FORMATS",
    "RunLog",
    "draw_curves",
    "find_logs",
    "read_run_log",
    "shortest_names",
    "write_figure",
]
