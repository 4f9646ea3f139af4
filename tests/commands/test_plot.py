"""``d2csr-plot``, as a user calls it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

ROWS = "epoch,step,train/fusion,val/psnr\n0,1,0.5,\n0,3,0.25,20.5\n"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs in the working folder, one of them with a name that needs quotes."""
    for name in ("seed0", "seed (1)"):
        (tmp_path / name / "csv").mkdir(parents=True)
        (tmp_path / name / "csv" / "metrics.csv").write_text(ROWS)
    return tmp_path


@pytest.mark.slow
def test_the_curves_of_a_run_are_in_its_folder_and_drawn_again(runs: Path, call) -> None:
    for _ in range(2):
        finished = call("plot", "run=seed (1)")
        assert (finished.returncode, finished.stdout) == (0, "seed (1)/curves.png\nseed (1)/curves.svg\n"), (
            finished.stderr
        )
    with Image.open(runs / "seed (1)" / "curves.png") as image:
        image.load()
    assert sorted(path.name for path in runs.iterdir()) == ["seed (1)", "seed0"]  # no run folder of Hydra


@pytest.mark.slow
def test_several_runs_are_drawn_into_the_working_folder_and_no_file_is_lost(runs: Path, call) -> None:
    assert call("plot", "run=[seed0, seed (1)]").stdout == "curves.png\ncurves.svg\n"
    legend = (runs / "curves.svg").read_text()
    assert "<!-- seed (1) -->" in legend
    assert "<!-- seed0 -->" in legend
    finished = call("plot", "run=[seed0,seed (1)]")
    assert finished.returncode == 1
    assert finished.stderr == "error: output: curves.png exists; choose another name, or add overwrite=true.\n"
    assert call("plot", "run=.", "output=figures/all.pdf").stdout == "figures/all.pdf\n"  # as the folder of a sweep
    assert call("plot", "run=seed0/csv/metrics.csv", "output=figures").returncode == 0
    assert sorted(path.name for path in (runs / "figures").iterdir()) == ["all.pdf", "curves.png", "curves.svg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run=… is missing; see --help."),
        (["run=[]"], "run=… is missing: a run folder, or several in brackets; see --help."),
        (["run=nowhere"], "run: nowhere: no such run folder."),
        (["run=seed0/csv/metrics.csv", "output=x.jpg"], "output: must be one of .png, .svg, .pdf, got '.jpg'."),
        (["run=[seed0,seed0/csv]"], "metrics.csv is named twice."),
        (["run=seed0", "overwrite=maybe"], "overwrite: must be true or false, got 'maybe'."),
        (["runs=seed0"], "runs: no such key. Did you mean run?"),
        (["run=empty"], "holds no values yet. A training writes a row every trainer.log_every_n_steps steps."),
    ],
)
def test_a_mistake_ends_in_one_message(arguments: list[str], message: str, runs: Path, call) -> None:
    (runs / "empty").mkdir()
    (runs / "empty" / "metrics.csv").touch()
    finished = call("plot", *arguments)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not list(runs.rglob("curves.*"))


@pytest.mark.slow
def test_a_training_leaves_its_curves_and_the_windows_are_those_of_the_logged_weight(demo_run: Path) -> None:
    from d2csr.plotting import find_logs, read_run_log
    from d2csr.plotting.divergence_windows import divergence_windows

    with Image.open(demo_run / "curves.png") as image:
        assert image.height > 1500  # four rows of charts
    assert "<!-- divergence loss active -->" in (demo_run / "curves.svg").read_text()
    (log,) = find_logs(demo_run)
    windows = divergence_windows(read_run_log(log, "demo"))
    with log.open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/divergence_weight"]]
    active = {any(start <= int(row["step"]) < stop for start, stop in windows) for row in rows}
    assert active == {True, False}
    for row in rows:
        shaded = any(start <= int(row["step"]) < stop for start, stop in windows)
        assert shaded == (float(row["train/divergence_weight"]) > 0)
