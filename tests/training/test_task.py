"""Behaviour that the three modes of optimization share."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

import d2csr
from d2csr.data.datamodule import PairDataModule
from d2csr.errors import ConfigError, DataError
from d2csr.metrics import psnr, ssim
from d2csr.training import OPTIMIZATIONS, SequentialTask
from fake_gpu import fake_gpu
from helpers import build_task
from pair_files import write_pairs

MODES = list(OPTIMIZATIONS)


def divergence_epochs(mode, epochs=1):
    return {"divergence_epochs": epochs} if mode == "sequential" else {}


class Rates(Callback):
    """The learning rates of all optimizers as each batch ends."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *args):
        self.seen.append([group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups])


@pytest.mark.parametrize("mode", MODES)
def test_a_step_is_a_batch(mode, tiny, batches, fit):
    task = build_task(optimization=mode, **tiny, **divergence_epochs(mode))
    assert fit(task, batches, max_epochs=2).global_step == 6


@pytest.mark.parametrize("mode", MODES)
def test_training_stops_after_max_steps_batches(mode, tiny, batches, fit):
    rates = Rates()
    task = build_task(optimization=mode, **tiny, **divergence_epochs(mode))
    trainer = fit(task, batches, max_epochs=-1, max_steps=4, callbacks=[rates])
    assert len(rates.seen) == 4
    assert trainer.global_step == 4


@pytest.mark.parametrize("mode", ["alternating", "joint"])
def test_the_learning_rate_follows_the_epoch(mode, tiny, batches, fit):
    rates = Rates()
    task = build_task(optimization=mode, **tiny, optimizer={"lr": 0.008, "decay_every": 2})
    fit(task, batches[:1], max_epochs=5, callbacks=[rates])
    assert [set(seen) for seen in rates.seen] == [{0.008}, {0.008}, {0.004}, {0.004}, {0.002}]
    assert len(rates.seen[0]) == (2 if mode == "alternating" else 1)


@pytest.mark.parametrize("mode", MODES)
def test_the_divergence_loss_follows_the_epoch(mode, tiny, batches, fit):
    class Divergence(Callback):
        def __init__(self):
            self.seen = []

        def on_train_epoch_end(self, trainer, task):
            metrics = trainer.callback_metrics
            self.seen.append((metrics["train/divergence_weight"].item(), metrics["train/divergence"].item()))

    divergence = {"weight": 0.5, "margin_same": 5.0, "margin_diff": 5.0, "after": 0, "period": 3, "active": 2}
    task = build_task(optimization=mode, **tiny, divergence=divergence, **divergence_epochs(mode, 4))
    callback = Divergence()
    fit(task, batches[:1], max_epochs=4, callbacks=[callback])
    assert [weight for weight, _ in callback.seen] == [0, 0.5, 0, 0.5]
    assert [loss > 0 for _, loss in callback.seen] == [False, True, False, True]


@pytest.mark.parametrize("mode", MODES)
def test_all_of_the_network_is_trained(mode, tiny, batches, fit, copied):
    # Weight decay moves even what no gradient reaches through the ReLUs.
    task = build_task(optimization=mode, **tiny, optimizer={"weight_decay": 0.1}, **divergence_epochs(mode))
    before = copied(task.network)
    fit(task, batches, max_epochs=2)
    assert [name for name, value in copied(task.network).items() if torch.equal(value, before[name])] == []


@pytest.mark.parametrize("mode", MODES)
def test_a_training_checkpoint_is_plain_and_gives_the_same_network(mode, tiny, batches, fit, tmp_path):
    task = build_task(optimization=mode, **tiny, divergence={"weight": 1.0}, **divergence_epochs(mode))
    fit(task, batches).save_checkpoint(tmp_path / "run.ckpt")
    content = torch.load(tmp_path / "run.ckpt", weights_only=True)
    assert content["hyper_parameters"]["optimization"] == mode
    assert content["hyper_parameters"]["network"] == task.network.settings
    model = d2csr.load_model(tmp_path / "run.ckpt")
    assert model.settings == task.network.settings
    # The weights, bit by bit: the image may differ in its last digit, since training lays channels out another way.
    weights = model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in task.network.state_dict().items())


@pytest.mark.parametrize("mode", MODES)
def test_lightning_restores_a_task_from_its_checkpoint(mode, tiny, batches, fit, tmp_path):
    task = build_task(optimization=mode, **tiny, **divergence_epochs(mode, 3))
    fit(task, batches[:1]).save_checkpoint(tmp_path / "run.ckpt")
    again = type(task).load_from_checkpoint(
        tmp_path / "run.ckpt",
        weights_only=True,
        losses=task.losses,
        divergence=task.divergence,
        divergence_gradient=True,
        optimizer=torch.optim.SGD,
        scheduler=None,
        scheduler_interval="epoch",
        divergence_epochs=3,
        protocol="y",
        ema_decay=None,
    )
    assert again.hparams == task.hparams
    assert again.psnr.protocol == "y"
    assert again.automatic_optimization == task.automatic_optimization
    lr = torch.rand(1, 3, 5, 7)
    assert torch.equal(again(lr), task(lr))


@pytest.mark.parametrize("protocol", ["d2csr", "y"])
def test_validation_reports_the_means_over_images_of_the_fused_image_and_each_leaf(protocol, tiny, trainer):
    generator = torch.Generator().manual_seed(1)
    images = []
    for size in ((8, 9), (10, 8), (9, 9)):
        lr = torch.rand(1, 3, *size, generator=generator)
        images.append({"lr": lr, "hr": lr.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)})
    task = build_task(optimization="joint", **tiny, protocol=protocol)
    [metrics] = trainer().validate(task, DataLoader(images, batch_size=None), verbose=False)
    task.eval()
    scores = {"val/psnr": [], "val/ssim": [], "val/psnr_21": []}
    with torch.no_grad():
        for batch in images:
            lr, hr = batch["lr"], batch["hr"]
            scores["val/psnr"].append(psnr(task(lr), hr, scale=2, protocol=protocol).item())
            scores["val/ssim"].append(ssim(task(lr), hr, scale=2, protocol=protocol).item())
            leaf = task.network.divergence(lr)[:, 2]
            scores["val/psnr_21"].append(psnr(leaf, hr, scale=2, protocol=protocol).item())
    for name, values in scores.items():
        assert metrics[name] == pytest.approx(math.fsum(values) / 3, rel=1e-5), name
    assert {f"val/psnr_{leaf}" for leaf in ("11", "12", "21", "22")} < metrics.keys()


def test_an_image_too_small_for_the_protocol_is_named_after_the_validation(tiny, trainer, tmp_path):
    pairs = write_pairs(tmp_path, 2, 20, 20)
    Image.new("RGB", (3, 3)).save(tmp_path / "lr1.png")
    Image.new("RGB", (6, 6)).save(tmp_path / "hr1.png")
    data = PairDataModule(scale=2, batch_size=1, patch_size=3, train_list=pairs, num_workers=0)
    task = build_task(optimization="joint", **tiny, protocol="y")
    with pytest.raises(DataError, match=r"hr1\.png: .* at least 15 pixels a side, got 6×6"):
        trainer().validate(task, datamodule=data)


def test_training_goes_on_after_validation(tiny, batches, trainer):
    task = build_task(optimization="alternating", **tiny)
    made = trainer(max_epochs=2)
    whole = [{"lr": torch.rand(1, 3, 8, 8), "hr": torch.rand(1, 3, 16, 16)}]
    made.fit(task, DataLoader(batches, batch_size=None), DataLoader(whole, batch_size=None))
    assert made.global_step == 6
    assert made.callback_metrics["val/psnr"].isfinite()


def test_an_unknown_optimization_is_named(tiny):
    with pytest.raises(ConfigError, match="optimization: must be one of alternating, joint, sequential, got 'both'"):
        build_task(optimization="both", **tiny)


def test_an_unknown_protocol_is_named(tiny):
    with pytest.raises(ConfigError, match="protocol: must be one of d2csr, cdc, y, realsr, rgb, got 'x'"):
        build_task(optimization="joint", **tiny, protocol="x")


@pytest.mark.parametrize("branching", [2, [], [0], "22"])
def test_an_impossible_branching_is_named(branching):
    losses = {key: {"_target_": "torch.nn.MSELoss"} for key in ("reconstruction", "divergence", "fusion")}
    with pytest.raises(ConfigError, match=r"^network\.branching: must be a"):
        build_task(optimization="joint", scale=2, branching=branching, losses=losses)


def test_every_mode_is_built_by_its_name(tiny):
    assert MODES == ["alternating", "joint", "sequential"]
    assert isinstance(build_task(optimization="sequential", **tiny, divergence_epochs=3), SequentialTask)


def test_batches_of_another_data_module_on_a_gpu_make_the_host_wait_once(tiny):
    task = build_task(optimization="joint", **tiny)
    task._trainer = SimpleNamespace(datamodule=None, training=True)
    scale = task.network.scale
    with fake_gpu() as waits:
        batch = {name: torch.rand(2, 3, 8 * s, 8 * s, device="cuda") for name, s in (("lr", 1), ("hr", scale))}
        seen = []
        for _ in range(3):
            waits.seen.clear()
            task.transfer_batch_to_device(batch, torch.device("cuda"), 0)
            seen.append(len(waits.seen))
    assert seen == [4, 0, 0]
