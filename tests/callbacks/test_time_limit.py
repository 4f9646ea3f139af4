from __future__ import annotations

from types import SimpleNamespace

import pytest
from pytorch_lightning.callbacks import Timer

from d2csr.callbacks.time_limit import TimeLimit
from d2csr.training import build_trainer


def broadcasts(world_size, every, steps=10):
    """Run the hook after each step of a training whose time is over; return the steps in which ranks communicate."""
    seen = []
    trainer = SimpleNamespace(world_size=world_size, log_every_n_steps=every, global_step=0, should_stop=False)
    trainer.strategy = SimpleNamespace(broadcast=lambda value: seen.append(trainer.global_step) or value)
    limit = TimeLimit(duration="00:00:00:00")
    limit.on_train_start(trainer, None)
    for trainer.global_step in range(1, steps + 1):
        limit.on_train_batch_end(trainer, None, None, None, 0)
        if trainer.should_stop:
            break
    return seen, trainer.global_step


def test_one_rank_stops_at_once():
    assert broadcasts(1, 4) == ([1], 1)


@pytest.mark.parametrize(("every", "step"), [(4, 4), (0, 50)])
def test_several_ranks_stop_at_the_next_step_that_is_logged(every, step):
    assert broadcasts(2, every, 60) == ([step], step)


def test_the_trainer_has_it_in_place_of_lightnings():
    trainer = build_trainer(optimization="joint", accelerator="cpu", logger=False, max_time="00:12:00:00")
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]
    assert [type(timer) for timer in timers] == [TimeLimit]
    assert timers[0].time_remaining() is None or timers[0].time_remaining() == pytest.approx(12 * 3600, abs=60)
    assert timers[0].state_key == Timer("00:00:01:00").state_key
