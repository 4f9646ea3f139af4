"""Steps in which the divergence loss is active, against its schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from d2csr.plotting.divergence_windows import divergence_windows, read_settings, second_stage_step
from d2csr.plotting.run_log import epoch_starts
from d2csr.schedules import DivergenceWeightSchedule

NONE = {"weight": 0.0, "after": -1, "period": 1, "active": 1, "decay_every": 1, "decay_factor": 1.0}
SCHEDULES = [
    {**NONE, "weight": 1.0, "after": 2, "period": 10, "active": 3, "decay_every": 20, "decay_factor": 0.5},  # official
    {**NONE, "weight": 1.0, "after": 3, "period": 5, "active": 2},  # the pause ends between two windows
    {**NONE, "weight": 1.0, "after": 0, "period": 4, "active": 3},  # and within a window
    {**NONE, "weight": 1.0, "period": 2},
    {**NONE, "weight": 1.0, "period": 3, "active": 9},  # always active
    {**NONE, "weight": 1.0, "decay_every": 7, "decay_factor": 0.0},  # ends with the first decay
    {**NONE, "weight": 1.0, "active": 0},
    NONE,
]


def rows(lengths: list[int], every: int) -> list[dict[str, Any]]:
    """Return rows of epochs with these numbers of steps: one every ``every`` steps, and a validation at each end."""
    epochs = [epoch for epoch, length in enumerate(lengths) for _ in range(length)]
    train = [{"step": s, "epoch": e, "train/divergence": 0.1} for s, e in enumerate(epochs) if s % every == every - 1]
    ends = [sum(lengths[: epoch + 1]) - 1 for epoch in range(len(lengths))]
    return sorted([*train, *({"step": s, "epoch": epochs[s], "val/psnr": 20.0} for s in ends)], key=lambda r: r["step"])


def shaded(windows: list[tuple[float, float]], step: int) -> bool:
    return any(start <= step < stop for start, stop in windows)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("every", [1, 4, 50])
def test_the_windows_are_those_of_the_schedule(schedule: dict[str, Any], every: int, write_run) -> None:
    weight = DivergenceWeightSchedule(**schedule)
    log = write_run(rows([7] * 33, every), {"model": {"divergence": schedule}})
    windows = divergence_windows(log)
    for step in range(7 * 33):
        assert shaded(windows, step) == (weight(step // 7) > 0), step
    assert all(stop <= 7 * 33 for _, stop in windows)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_settings_the_windows_are_those_of_the_logged_weight(schedule: dict[str, Any], write_run) -> None:
    weight = DivergenceWeightSchedule(**schedule)
    written = [
        {**row, "train/divergence_weight": weight(row["epoch"])} for row in rows([7] * 33, 3) if "val/psnr" not in row
    ]
    windows = divergence_windows(write_run([*written, {"step": 7 * 33 - 1, "epoch": 32, "val/psnr": 20.0}]))
    assert [shaded(windows, step) for step in range(7 * 33)] == [weight(step // 7) > 0 for step in range(7 * 33)]


def test_epochs_of_different_lengths_have_their_own_steps(write_run) -> None:
    """A run that was resumed with another batch size."""
    lengths = [6, 6, 6, 9, 9, 9, 9]
    log = write_run(rows(lengths, 2), {"model": {"divergence": {**NONE, "weight": 1.0, "period": 3}}})
    assert epoch_starts(log.epochs).length is None
    assert divergence_windows(log) == [(0, 6), (18, 27), (45, 54)]  # epochs 0, 3 and 6


def test_the_length_of_an_epoch_is_exact_from_one_row_at_its_end(write_run) -> None:
    starts = epoch_starts(write_run([{"step": s, "epoch": s // 115, "a": 1.0} for s in (49, 99, 149, 229)]).epochs)
    assert (starts.length, starts.count, starts.step(3)) == (115, 2, 345)


@pytest.mark.parametrize(
    ("settings", "second"),
    [
        ({"model": {"divergence_epochs": 4}}, 4),
        ({"trainer": {"max_epochs": 9}}, 4),
        ({"trainer": {"max_epochs": 90}}, 5),  # of a resumed run, which keeps the start of its second stage
        ({"model": {"divergence_epochs": "4"}}, 5),
        ({}, 5),
    ],
)
def test_the_second_stage_has_no_window(settings: dict[str, Any], second: int, write_run) -> None:
    """Rows of the first stage in epochs 0 to 3, of the second one in epochs 5 to 8; nothing was logged in epoch 4."""
    first = [{"step": s, "epoch": s // 10, "train/reconstruction": 1.0, "train/divergence": 1.0} for s in range(40)]
    later = [{"step": s, "epoch": s // 10, "train/fusion": 1.0} for s in range(50, 90)]
    schedule = {"divergence": {**NONE, "weight": 1.0}}
    log = write_run([*first, *later], {**settings, "model": {**settings.get("model", {}), **schedule}})
    assert divergence_windows(log) == [(0, 10 * second)]
    assert second_stage_step(log) == 10 * second


def test_other_modes_have_no_second_stage(write_run) -> None:
    log = write_run([{"step": 1, "epoch": 0, "train/reconstruction": 1.0, "train/fusion": 1.0}])
    assert second_stage_step(log) is None


def test_a_task_without_divergence_loss_has_no_window(write_run) -> None:
    log = write_run([{"step": 1, "epoch": 0, "train/loss": 1.0}], {"model": {"divergence": SCHEDULES[3]}})
    assert divergence_windows(log) == []


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"[1, 2]",
        b"model: [",
        b"model: !!python/object/apply:os.system [touch pwned]",
        pytest.param(b"[" * 1_500, marks=pytest.mark.slow),
        b"model: {divergence: {weight: -1, after: 0, period: 0, active: x, decay_every: 1, decay_factor: 1}}",
        b"model: {divergence: 3}",
        b"x" * 300_000,
    ],
    ids=["no text", "no mapping", "broken", "code", "deep", "bad values", "no schedule", "large"],
)
def test_settings_that_cannot_be_read_count_as_missing(content: bytes, write_run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = write_run([{"step": s, "epoch": 0, "train/divergence": 1.0, "train/divergence_weight": 1.0} for s in (0, 1)])
    log.file.with_name("hparams.yaml").write_bytes(content)
    assert "weight" not in read_settings(log.file)
    assert divergence_windows(log) == [(0, 2)]
    assert not (tmp_path / "pwned").exists()


def test_an_absurd_number_of_epochs_ends_in_finite_time(write_run) -> None:
    log = write_run(
        [
            {"step": 1, "epoch": 1e300, "train/divergence": 1.0},
            {"step": 1e300, "epoch": 1e301, "train/divergence": 1.0},
        ],
        {"model": {"divergence": SCHEDULES[4]}},
    )
    assert len(divergence_windows(log)) == 1
