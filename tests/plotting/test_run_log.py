"""Reading of training logs: values, damaged files, and where the logs of runs are."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2csr.errors import ConfigError, DataError
from d2csr.plotting.run_log import MAX_BYTES, MAX_COLUMNS, find_logs, read_run_log, shortest_names


def log_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    return path


def test_each_column_has_its_own_steps(tmp_path: Path) -> None:
    log = read_run_log(log_of(tmp_path, "epoch,step,a,val/b\n0,49,1.5,\n0,99,-2e-3,\n0,99,,27.5\n1,149,nan,\n"), "mine")
    assert log.name == "mine"
    assert log.columns.keys() == {"epoch", "a", "val/b"}
    assert log.columns["a"].steps.tolist() == [49, 99, 149]
    np.testing.assert_equal(log.columns["a"].values, [1.5, -2e-3, math.nan])
    assert (log.columns["val/b"].steps.tolist(), log.columns["val/b"].values.tolist()) == ([99], [27.5])
    assert (log.epochs.steps.tolist(), log.epochs.values.tolist()) == ([49, 99, 149], [0, 0, 1])
    assert log.last_step == 149


def test_rows_are_ordered_and_of_two_for_a_step_the_last_one_counts(tmp_path: Path) -> None:
    """A log that was pieced together from a run and its continuation."""
    series = read_run_log(log_of(tmp_path, "step,a\n20,1\n30,2\n10,3\n20,4\n"), "").columns["a"]
    assert (series.steps.tolist(), series.values.tolist()) == ([10, 20, 30], [3, 4, 2])


def test_damaged_rows_and_cells_are_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "step,a,b\n1,10,x\n\nrubbish\nnan,1,1\n-3,1,1\n2,20,tensor(3.)\n3,30,5\n4,4"
    with caplog.at_level(logging.WARNING):
        log = read_run_log(log_of(tmp_path, text), "")
    assert log.columns["a"].values.tolist() == [10, 20, 30]
    assert (log.columns["b"].steps.tolist(), log.columns["b"].values.tolist()) == ([3], [5])
    assert "skipped 4 rows that do not fit the header" in caplog.text
    assert "skipped 2 cells of b that are no numbers" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no values yet"),
        ("epoch,step,a\n", "holds no values yet"),
        ("epoch,step,a\n0,1,\n", "holds no values yet"),
        ("epoch,iteration,a\n0,1,2\n", "has no column named step"),
        (",".join(["step", *map(str, range(MAX_COLUMNS))]), "above the limit of 1,000"),
        (f'step,a\n1,"{"x" * 200_000}"\n', "is not a CSV file"),
    ],
)
def test_a_log_without_values_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_run_log(log_of(tmp_path, text), "")
    assert str(tmp_path / "metrics.csv") in str(caught.value)


def test_other_than_a_regular_file_of_bounded_size_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    for path, message in ((tmp_path / "fifo", "not a regular file"), (tmp_path / "large.csv", "above the limit")):
        with pytest.raises(DataError, match=message):
            read_run_log(path, "")


@given(
    content=st.one_of(st.binary(), st.text("step,a\n\r\"'\0-.e019", min_size=5).map(lambda t: f"step,a\n{t}".encode()))
)
def test_any_bytes_are_read_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.csv"
    path.write_bytes(content)
    try:
        log = read_run_log(path, "")
    except DataError:
        return
    for series in log.columns.values():
        assert len(series.steps) == len(series.values) > 0
        assert (np.diff(series.steps) > 0).all()


def test_a_run_is_found_by_its_folder_its_file_or_the_folder_of_a_sweep(tmp_path: Path) -> None:
    for job in ("sweep/0", "sweep/10", "sweep/2"):
        (tmp_path / job / "csv").mkdir(parents=True)
        (tmp_path / job / "csv" / "metrics.csv").touch()
    first = tmp_path / "sweep/0/csv/metrics.csv"
    for named in (first, first.parent, first.parent.parent):
        assert find_logs(named) == [first]
    assert [log.parts[-3] for log in find_logs(tmp_path / "sweep")] == ["0", "2", "10"]


def test_a_folder_without_a_log_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, message in (
        (tmp_path, r"holds no csv/metrics\.csv\. Name the folder of a training"),
        (tmp_path / "nowhere", "no such run folder"),
        (tmp_path / "fifo", "neither a regular file nor a folder"),
        (Path("~nobody-of-this-name"), "no such user"),
    ):
        with pytest.raises(DataError, match=message):
            find_logs(path)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/a"], ["a"]),
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/run", "y/run"], ["x/run", "y/run"]),
        (["x/1/run", "y/1/run", "y/2/run"], ["x/1/run", "y/1/run", "y/2/run"]),
    ],
)
def test_names_are_the_shortest_that_differ(folders: list[str], names: list[str], tmp_path: Path) -> None:
    assert shortest_names([tmp_path / folder / "csv" / "metrics.csv" for folder in folders]) == names
    assert shortest_names([tmp_path / folder / "metrics.csv" for folder in folders]) == names


def test_a_run_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "run" / "csv" / "metrics.csv"
    with pytest.raises(ConfigError, match=r"metrics\.csv is named twice"):
        shortest_names([log, tmp_path / "run" / ".." / "run" / "csv" / "metrics.csv"])


def test_two_logs_of_one_folder_have_different_names(tmp_path: Path) -> None:
    """A run that was started anew keeps the former log as metrics.1.csv."""
    names = shortest_names([tmp_path / "metrics.csv", tmp_path / "metrics.1.csv"])
    assert len(set(names)) == 2
