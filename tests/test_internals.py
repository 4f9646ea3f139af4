"""Private names of Lightning and torch: each exists, and only two modules use them."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.strategies import DDPStrategy
from torch.optim.optimizer import register_optimizer_step_post_hook

from d2csr import internals, torch_internals
from d2csr.callbacks import GradientClipping
from d2csr.optimizers import MuonWithAdamW
from d2csr.resumable_loop import ResumableEpochLoop

SOURCE = Path(internals.__file__).parent

IN_MODULES = [
    "pytorch_lightning.loops.fetchers:_DataFetcher.fetched",
    "pytorch_lightning.loops.training_epoch_loop:_TrainingEpochLoop._broadcast_sigterm_tensor",
    "pytorch_lightning.loops.fit_loop:_FitLoop._can_stop_early",
    "pytorch_lightning.loops.training_epoch_loop:_TrainingEpochLoop._num_ready_batches_reached",
    "pytorch_lightning.loops.training_epoch_loop:_TrainingEpochLoop._should_accumulate",
    "pytorch_lightning.loops.training_epoch_loop:_TrainingEpochLoop._should_check_val_fx",
    "pytorch_lightning.loops.training_epoch_loop:_TrainingEpochLoop._build_kwargs",
    "pytorch_lightning.loops.training_epoch_loop:_TrainingEpochLoop.on_advance_end",
    "pytorch_lightning.loops.training_epoch_loop:_TrainingEpochLoop.on_run_start",
    "pytorch_lightning.loops.training_epoch_loop:_TrainingEpochLoop.reset",
    "pytorch_lightning.loggers.csv_logs:ExperimentWriter._check_log_dir_exists",
    "pytorch_lightning.loggers.csv_logs:ExperimentWriter._rewrite_with_new_header",
    "pytorch_lightning.trainer.connectors.data_connector:_DataHookSelector.get_instance",
    "pytorch_lightning.trainer.connectors.checkpoint_connector:_CheckpointConnector.dump_checkpoint",
    "pytorch_lightning.plugins:Precision.post_backward",
    "pytorch_lightning.overrides.distributed:_sync_module_states",
    "torch:_foreach_copy_",
    "torch:_foreach_lerp_",
    "torch:_foreach_mul_",
    "torch:_foreach_sub_",
    "torch.nn:Module._call_impl",
    "torch.distributed.distributed_c10d:_abort_process_group",
    "torch.distributed.distributed_c10d:_get_default_store",
    "torch.autograd.profiler:_is_profiler_enabled",
    "torch.optim.optimizer:_global_optimizer_post_hooks",
    "torch.optim.optimizer:_global_optimizer_pre_hooks",
    "torch.optim:Optimizer.profile_hook_step",
    "torch.utils._python_dispatch:TorchDispatchMode.__torch_dispatch__",
    "torch.utils._pytree:tree_leaves",
]


@pytest.fixture
def trainer() -> pl.Trainer:
    return pl.Trainer(accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False)


def test_the_fetcher_counts_its_batches() -> None:
    assert internals.DataFetcher().fetched == 0


@pytest.mark.parametrize("name", [name for name in IN_MODULES if not name.endswith(".fetched")])
def test_the_name_exists(name: str) -> None:
    module, _, path = name.partition(":")
    found = importlib.import_module(module)
    for part in path.split("."):
        assert hasattr(found, part), f"{module}: {path} has moved; see d2csr/internals.py"
        found = getattr(found, part)


def test_a_name_that_moved_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "torch.distributed.distributed_c10d:_abort_process_group"
    monkeypatch.delattr(name.replace(":", "."))
    with pytest.raises(AssertionError, match="_abort_process_group has moved"):
        test_the_name_exists(name)


@pytest.mark.parametrize(
    "path",
    [
        "_accelerator_connector.cluster_environment",
        "_checkpoint_connector.dump_checkpoint",
        "_data_connector._datahook_selector",
        "fit_loop.epoch_loop._batches_that_stepped",
        "fit_loop.epoch_loop.batch_progress.current.completed",
        "fit_loop.epoch_loop.batch_progress.is_last_batch",
        "fit_loop.epoch_loop.val_loop",
        "fit_loop.epoch_progress.current.completed",
    ],
)
def test_the_trainer_has_the_attribute(trainer: pl.Trainer, path: str) -> None:
    found = trainer
    for part in path.split("."):
        assert hasattr(found, part), f"Trainer.{path} has moved; see d2csr/internals.py"
        found = getattr(found, part)


def test_a_checkpoint_holds_the_counters_of_the_loops(trainer: pl.Trainer) -> None:
    fit = trainer.fit_loop.state_dict()
    assert fit.keys() >= {
        "epoch_progress",
        "epoch_loop.batch_progress",
        "epoch_loop.val_loop.batch_progress",
        "epoch_loop.automatic_optimization.optim_progress",
        "epoch_loop.manual_optimization.optim_step_progress",
        "epoch_loop.state_dict",
    }
    assert "_batches_that_stepped" in fit["epoch_loop.state_dict"]


def test_the_module_keeps_the_name_of_its_present_hook() -> None:
    assert hasattr(BoringModel(), internals.HOOK_NAME)


def test_the_strategy_keeps_its_time_out_and_its_processes() -> None:
    trainer = pl.Trainer(accelerator="cpu", devices=2, strategy=DDPStrategy(), logger=False)
    assert internals.group_timeout(trainer).total_seconds() > 0
    trainer.strategy._configure_launcher()
    assert trainer.strategy.launcher.procs == internals.child_processes(trainer) == []


def test_the_observer_of_the_processes_is_stopped() -> None:
    trainer = pl.Trainer(accelerator="cpu", devices=2, strategy=DDPStrategy(), logger=False)
    internals.stop_process_observer(trainer)  # without a launcher, as under torchrun
    trainer.strategy._configure_launcher()
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"]) as failed:
        trainer.strategy.launcher.procs.append(failed)
    observer = _ChildProcessObserver(main_pid=failed.pid, child_processes=trainer.strategy.launcher.procs)
    observer._terminate_all = lambda: pytest.fail("this process would be killed")
    internals.stop_process_observer(trainer)
    assert observer._run()  # whether it has nothing more to observe
    assert internals.child_processes(trainer) == [failed]


class WithHooks(BoringModel):
    """A module that records one of its hooks."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self.calls = calls

    def on_before_backward(self, loss: torch.Tensor) -> None:
        self.calls.append("module")


def test_empty_hooks_of_lightning_and_of_this_package_alone_are_skipped(trainer: pl.Trainer) -> None:
    calls: list[str] = []

    class Own(pl.Callback):
        def on_train_batch_end(self, *args: object) -> None:
            self.on_after_backward(*args[:2])  # empty, but other classes may call it
            calls.append("own")

    given = pl.callbacks.LambdaCallback(on_train_batch_end=lambda *_: calls.append("given"))
    clipping = GradientClipping(1.0, "norm")
    trainer.callbacks += [Own(), given, clipping]
    trainer.limit_train_batches = 1
    module = WithHooks(calls)
    module.__class__.__module__ = "d2csr.training"
    fit_by_own_loop(trainer, module)
    assert calls == ["module", "own", "given"]
    assert given.on_after_backward is clipping.on_train_batch_end is module.on_after_backward is None
    assert module.configure_gradient_clipping is None
    assert callable(clipping.on_before_optimizer_step)
    assert callable(trainer.callbacks[-3].on_after_backward)


def fit_by_own_loop(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    trainer.fit_loop.epoch_loop = ResumableEpochLoop(trainer, patches=0, between_batches=lambda: None)
    trainer.fit(module)


def test_a_hook_after_the_backward_pass_is_called_where_it_is_defined(trainer: pl.Trainer) -> None:
    calls: list[str] = []
    callback = pl.callbacks.LambdaCallback()
    trainer.callbacks.append(callback)
    trainer.limit_train_batches = 2
    fit_by_own_loop(trainer, BoringModel())
    assert "post_backward" in vars(trainer.precision_plugin)
    callback.on_after_backward = lambda *_: calls.append("called")
    trainer.fit_loop.max_epochs = 2
    trainer.fit(BoringModel())
    assert calls == ["called"] * 2


def test_clipping_by_lightning_is_not_skipped() -> None:
    settings = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
    trainer = pl.Trainer(**settings, max_epochs=1, limit_train_batches=1, gradient_clip_val=1e-3)
    norms = []
    trainer.callbacks.append(
        pl.callbacks.LambdaCallback(
            on_before_zero_grad=lambda *_: None,
            on_train_batch_end=lambda _, module, *__: norms.append(
                torch.cat([p.grad.flatten() for p in module.parameters()]).norm().item()
            ),
        )
    )
    fit_by_own_loop(trainer, BoringModel())
    assert norms == [pytest.approx(1e-3, rel=1e-3)]


def test_a_training_step_gets_the_arguments_that_it_has(trainer: pl.Trainer) -> None:
    got: list[tuple[int, ...]] = []

    class ByIndex(BoringModel):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            got.append((batch_idx,))
            return super().training_step(batch, batch_idx)["loss"]

    class ByBatch(BoringModel):
        def training_step(self, batch: torch.Tensor) -> torch.Tensor:
            got.append(())
            return super().training_step(batch, 0)["loss"]

    trainer.limit_train_batches = 3
    fit_by_own_loop(trainer, ByIndex())
    trainer.fit_loop.max_epochs = 2
    trainer.fit(ByBatch())
    assert got == [(0,), (1,), (2,), (), (), ()]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, MuonWithAdamW])
def test_an_optimizer_steps_the_same_without_labels_for_profilers(kind) -> None:
    def stepped(labelled: bool) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 8 * 8 * 9).view(8, 8, 3, 3))
        optimizer = kind([weight], lr=0.1)
        if not labelled:
            torch_internals.skip_labels(optimizer)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)  # wraps the step
        for _ in range(3):
            weight.grad = weight.detach().clone()
            assert optimizer.step(lambda: 7.0) == 7.0
            scheduler.step()
            optimizer.zero_grad(set_to_none=False)
            assert torch.equal(weight.grad, torch.zeros_like(weight))
            optimizer.zero_grad()
            assert weight.grad is None
        return weight.detach()

    assert torch.equal(stepped(True), stepped(False))


def test_profilers_and_hooks_of_an_optimizer_see_its_steps() -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
    torch_internals.skip_labels(optimizer)
    calls = []
    with torch.profiler.profile() as profile:
        optimizer.step()
        optimizer.zero_grad()
    labels = {"Optimizer.step#Adam.step", "Optimizer.zero_grad#Adam.zero_grad"}
    assert labels <= {event.key for event in profile.key_averages()}
    handles = [optimizer.register_step_pre_hook(lambda *_: calls.append("before"))]
    optimizer.step()
    handles.append(register_optimizer_step_post_hook(lambda *_: calls.append("after")))
    optimizer.step()
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert calls == ["before", "before", "after"]


def test_a_module_without_a_trainer_is_not_attached(trainer: pl.Trainer) -> None:
    module = pl.LightningModule()
    assert not internals.is_attached(module)
    module.trainer = trainer
    assert internals.is_attached(module)


def test_an_error_of_a_restoration_is_recognised(trainer: pl.Trainer, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "broken.ckpt")
    with pytest.raises(KeyError) as raised:  # without the version of Lightning
        trainer.fit(BoringModel(), ckpt_path=tmp_path / "broken.ckpt", weights_only=True)
    assert internals.was_restoring(raised.value)
    with pytest.raises(TypeError) as raised:
        trainer.fit("not a module")
    assert not internals.was_restoring(raised.value)


def test_loggers_keep_their_writer_and_the_arguments_of_wandb(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    assert logger._experiment is internals.get_experiment(logger) is None
    assert internals.set_experiment(logger, "writer") == logger._experiment == "writer"
    assert "anonymous" in internals.wandb_arguments(WandbLogger(save_dir=tmp_path, offline=True))


# ``self._x`` is mostly a name of the class itself; these are names of the classes of libraries.
INHERITED = {"_trainer", "_experiment", "_wandb_init", "_batches_that_stepped", "_should_accumulate", "_timeout"}
ALLOWED = {
    "_replace",  # public methods of named tuples
    "_asdict",
    "_exit",
    "_target_",
}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_other_module_uses_a_private_name(path: Path) -> None:
    if path.name in ("internals.py", "torch_internals.py"):
        return
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            own = ast.unparse(node.value) in ("self", "cls", "super()")
            if node.attr not in ALLOWED and (not own or node.attr in INHERITED):
                found.append(f"{node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("pytorch_lightning", "torch")):
            found += [f"{node.lineno}: {alias.name}" for alias in node.names if alias.name.startswith("_")]
    assert found == []
