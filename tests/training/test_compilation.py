from __future__ import annotations

from types import SimpleNamespace

import pytest

from d2csr.errors import ConfigError
from d2csr.training.compilation import COMPILE_MODES, check_accumulation


@pytest.mark.parametrize("mode", [*COMPILE_MODES, None])
def test_gradients_are_not_accumulated_over_cuda_graphs(mode):
    task = SimpleNamespace(compile_mode=mode)
    check_accumulation(task, SimpleNamespace(accumulate_grad_batches=1))
    if mode in ("default", None):
        check_accumulation(task, SimpleNamespace(accumulate_grad_batches=2))
        return
    with pytest.raises(ConfigError, match=rf"^model\.compile: {mode} .*accumulate_grad_batches=2.*compile=default"):
        check_accumulation(task, SimpleNamespace(accumulate_grad_batches=2))


def test_a_task_of_another_package_may_accumulate():
    check_accumulation(object(), SimpleNamespace(accumulate_grad_batches=2))
