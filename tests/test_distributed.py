"""What is common to processes that work together; the rest is in ``commands/test_failing_processes.py``."""

from __future__ import annotations

import pytest
import torch

from d2csr.distributed import ErrorReportingDataset, gather_and_raise, raise_on_all_ranks
from d2csr.errors import ConfigError, DataError


class Numbers(torch.utils.data.Dataset):
    """Items 0 to 4, of which the odd ones cannot be read."""

    def __len__(self):
        return 5

    def __getitem__(self, number):
        if number % 2:
            raise DataError(f"{number}.png: a broken image")
        return {"lr": torch.full((2,), number), "index": number}


def test_broken_items_come_as_a_report_that_takes_the_place_of_their_batch():
    items = ErrorReportingDataset(Numbers(), stand_in={"lr": torch.zeros(3), "index": -1})
    loader = torch.utils.data.DataLoader(items, batch_size=2, collate_fn=ErrorReportingDataset.collate, num_workers=1)
    first, second, third = loader
    assert first["error"] == ["1.png: a broken image"]
    assert first["lr"].shape == (1, 3)
    assert first["index"].tolist() == [-1]
    assert second["error"] == ["3.png: a broken image"]
    assert third.keys() == {"lr", "index"}
    assert third["lr"].tolist() == [[4, 4]]


def test_one_process_alone_raises_at_once_and_each_problem_once():
    gather_and_raise([])
    with pytest.raises(DataError) as error:
        gather_and_raise(["a", "b", "a"])
    assert str(error.value) == "a\nb"


def test_a_mistake_keeps_its_kind():
    @raise_on_all_ranks
    def check(value):
        raise ConfigError(f"{value} is impossible")

    with pytest.raises(ConfigError, match=r"^7 is impossible$"):
        check(7)
