"""The demo's data: like any other, but for the pairs, which are made when they are first needed."""

from __future__ import annotations

from typing import Any

from d2csr.data.datamodule import PairDataModule
from d2csr.demo.pairs import write_pairs


class DemoDataModule(PairDataModule):
    """A :class:`d2csr.data.datamodule.PairDataModule` that first writes the built-in photographs' pairs and lists.

    They go to ``list_dir``, where the lists are then found as those of any data set are. All arguments are those of
    :class:`d2csr.data.datamodule.PairDataModule`.
    """

    def __init__(self, *, name: str = "demo", **settings: Any) -> None:
        super().__init__(name=name, **settings)

    def prepare_data(self) -> None:
        """Write the pairs, unless they are there.

        Raises:
            DataError: the folder cannot be written to.
        """
        write_pairs(self.splits.list_dir, self.scale)
