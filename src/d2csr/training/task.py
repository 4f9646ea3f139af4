"""Base class of the training tasks; :mod:`d2csr.training.modes` adds optimizers and steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from d2csr.callbacks.ema import EMA
from d2csr.checkpoints.own import AVERAGE, KEY, PREFIX, SCHEDULES, describe
from d2csr.checks import keys_below
from d2csr.data.batch import Batch, as_batch, without_padding
from d2csr.data.datamodule import PairDataModule
from d2csr.distributed import gather_and_raise
from d2csr.errors import ConfigError, DataError
from d2csr.inference import Inference
from d2csr.internals import HOOK_NAME, is_attached
from d2csr.losses import sum_over_leaves
from d2csr.metrics import PSNR, SSIM
from d2csr.models import build_network
from d2csr.optimizers import OptimizerFactory, move_step_counts, with_fused_step
from d2csr.schedules import DivergenceWeightSchedule
from d2csr.torch_internals import skip_labels
from d2csr.training import scheduling

Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES = ("reconstruction", "divergence", "fusion")


class D2CSRTask(pl.LightningModule):
    """Network, losses, schedules, validation and checkpoints of a training.

    Batches are dicts of ``lr``, N×3×H×W, and ``hr``, N×3×sH×sW, RGB floats in [0, 1]. Use
    :func:`d2csr.training.build_task`, which explains and checks the arguments. Two are different here: ``divergence``
    is the weight of the divergence loss as a function of the epoch, and ``divergence_gradient=False`` detaches it.
    """

    optimization: ClassVar[str]  # the name of the mode
    steps_itself: ClassVar[bool] = False  # training_step steps the optimizers: Lightning's manual optimization
    whole_backward: ClassVar[bool] = False  # each backward pass reaches every parameter of both networks

    def __init__(
        self,
        network: dict[str, Any],
        *,
        losses: Mapping[str, Loss],
        divergence: DivergenceWeightSchedule,
        divergence_gradient: bool,
        optimizer: OptimizerFactory,
        scheduler: scheduling.SchedulerFactory | None,
        scheduler_interval: str,
        divergence_epochs: int | None,
        protocol: str,
        ema_decay: float | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = not self.steps_itself
        with keys_below("network"):
            self.network = build_network(network)
        self.save_hyperparameters({"network": self.network.settings, "optimization": self.optimization})
        self.losses = dict(losses)  # in a dict, modules are not part of the task: checkpoints hold no weights of theirs
        self.divergence = divergence
        self.divergence_gradient = divergence_gradient
        self.divergence_epochs = divergence_epochs
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        self.scheduler_interval = scheduler_interval
        self.schedulers = scheduling.Schedulers([], None, scheduler_interval)
        self.average = None if ema_decay is None else EMA(ema_decay)
        scale = self.network.scale
        self.psnr, self.ssim = PSNR(scale, protocol), SSIM(scale, protocol)
        self.leaf_psnr = nn.ModuleDict({leaf: PSNR(scale, protocol) for leaf in self.network.tree.leaves})
        self.compile_mode: str | None = None
        self._resumed: dict[str, Any] | None = None
        self._step = 0
        self._checked = False  # the range of a training batch
        self._broken: list[str] = []

    def __setattr__(self, name: str, value: Any) -> None:
        """Set the name of the present hook without torch's search for parameters: Lightning does it 30 times a step."""
        if name == HOOK_NAME:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def compile_networks(self, mode: str) -> None:
        """Compile both networks in place, for training alone: validation has strips of many sizes."""
        for network in (self.network.divergence, self.network.convergence):
            network.compile(mode=mode)
        self.compile_mode = mode

    def forward(self, lr: Tensor) -> Tensor:
        """Return the fused image, N×3×sH×sW, of an LR batch, N×3×H×W, RGB in [0, 1]."""
        return self.network(lr)

    def configure_callbacks(self) -> list[Callback]:
        """Return the average of the weights, if there is one."""
        return [] if self.average is None else [self.average]

    def divergence_losses(self, predictions: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Return the losses of the divergence network, scalars to be added up."""
        weight = self.divergence(self.current_epoch)
        # The weight is 0 in most epochs of the official schedule.
        divergence = weight * self._loss("divergence", predictions, hr) if weight else predictions.new_zeros(()).float()
        return {
            "reconstruction": self._loss("reconstruction", predictions, hr),
            "divergence": divergence if self.divergence_gradient else divergence.detach(),
        }

    def convergence_losses(self, sr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Return the loss of the convergence network, a scalar."""
        return {"fusion": self._loss("fusion", sr, hr)}

    def _loss(self, name: str, outputs: Tensor, hr: Tensor) -> Tensor:
        criterion = self.losses[name]
        with torch.autocast(outputs.device.type, enabled=False):
            outputs, hr = outputs.float(), hr.float()
            loss = sum_over_leaves(criterion, outputs, hr) if name == "reconstruction" else criterion(outputs, hr)
        if not isinstance(loss, Tensor) or loss.ndim:
            got = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            raise ConfigError(
                f"model.losses.{name}: must return a scalar, got {got}. Losses of torch do with reduction=mean."
            )
        return loss

    def step_outputs(
        self, losses: dict[str, Tensor], predictions: Tensor, sr: Tensor | None = None, weights: Tensor | None = None
    ) -> dict[str, Any]:
        """Show the losses to callbacks, and return the outputs of a step for them.

        Predictions are N×K×3×sH×sW; ``sr``, N×3×sH×sW, and ``weights``, N×K×sH×sW, are those of the convergence
        network if it was trained.
        """
        losses = {name: loss.detach() for name, loss in losses.items()}
        if is_attached(self):  # self.log does the same at 40 times the cost
            self.trainer.callback_metrics.update({f"train/{name}": loss for name, loss in losses.items()})
        return {
            "losses": losses,
            "predictions": predictions.detach(),
            "sr": None if sr is None else sr.detach(),
            "weights": None if weights is None else weights.detach(),
        }

    def build_optimizers(self, *networks: nn.Module) -> list[Optimizer]:
        """Build one optimizer for each of these networks, and their schedulers."""
        factory = with_fused_step(self.optimizer_factory, self.device.type, str(self.trainer.precision))
        optimizers = [factory(network.parameters()) for network in networks]
        for optimizer in optimizers:
            skip_labels(optimizer)
        self.schedulers = scheduling.Schedulers(optimizers, self.scheduler_factory, self.scheduler_interval)
        return optimizers

    def stage(self) -> tuple[int, int]:
        """Return the stage of the training and the epoch within it, both from 0."""
        return 0, self.current_epoch

    def on_fit_start(self) -> None:
        """Move the losses to the device."""
        self._checked = False
        for loss in self.losses.values():
            if isinstance(loss, nn.Module):
                loss.to(self.device)

    def on_train_start(self) -> None:
        """Continue the schedules of the checkpoint."""
        self._step = self.trainer.global_step
        state, self._resumed = self._resumed, None
        if state is not None:
            stage, epoch = self.stage()
            count = epoch if self.scheduler_interval == "epoch" else self._step
            self.schedulers.load_state_dict(state or {"stage": stage, "count": count})
            for optimizer in self.schedulers.optimizers:
                move_step_counts(optimizer)

    def on_train_epoch_start(self) -> None:
        """Set the learning rate."""
        self.schedulers.start_epoch(*self.stage())
        rate, weight = self.schedulers.optimizers[0].param_groups[0]["lr"], self.divergence(self.current_epoch)
        shown = {"train/lr": torch.as_tensor(rate), "train/divergence_weight": torch.as_tensor(weight)}
        self.trainer.callback_metrics.update(shown)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch to the device; check those of other data modules, which may be tuples.

        If they are on a GPU already, only the first training batch is checked for its range: the host waits for that.
        """
        if PairDataModule.of(self.trainer) is None:
            batch = as_batch(batch, self.network.scale, wait=not (self.trainer.training and self._checked))
            self._checked = self._checked or bool(self.trainer.training)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Let CUDA graphs overwrite the outputs of the last step."""
        if self.compile_mode:  # the call loads the compiler, for seconds
            torch.compiler.cudagraph_mark_step_begin()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Step the schedulers, if the optimizers stepped."""
        if self.trainer.global_step != self._step:
            self._step = self.trainer.global_step
            self.schedulers.end_step()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Add a batch of whole images to the scores; return its images and outputs, or ``None`` for padding.

        The ranks have different numbers of batches, so nothing is exchanged here. A batch of padding adds no image, but
        every rank must log every metric.
        """
        self._broken += batch.get("error", [])
        lr, hr = without_padding(batch)
        sr, predictions, weights = self._infer(lr, hr)
        scored: dict[str, tuple[Any, Tensor]] = {"val/psnr": (self.psnr, sr), "val/ssim": (self.ssim, sr)}
        for leaf, prediction in zip(self.network.tree.leaves, predictions.unbind(dim=1), strict=True):
            scored[f"val/psnr_{leaf}"] = self.leaf_psnr[leaf], prediction
        for name, (metric, images) in scored.items():
            try:
                metric.update(images.to(hr.device), hr)
            except DataError as error:  # too small for the protocol; raised after the validation, on all ranks
                data = PairDataModule.of(self.trainer)
                names = [str(data.val_pairs[number].hr) for number in batch["index"].tolist()] if data else []
                self._broken.append(f"{', '.join(names) or 'validation'}: {error}")
            self.log(name, metric, on_epoch=True, batch_size=len(batch["lr"]))
        if len(lr) == 0 or self._broken:
            return None
        return {"lr": lr, "hr": hr, "sr": sr, "predictions": predictions, "weights": weights}

    def on_validation_epoch_end(self) -> None:
        """Step the schedulers that follow the PSNR.

        Raises:
            DataError: on every rank, if any could not read an image, or one is too small for the protocol.
        """
        broken, self._broken = self._broken, []
        gather_and_raise(broken)
        extra = getattr(self.trainer.fit_loop.epoch_loop, "extra", False)  # a longer run would not have it
        fitting = self.trainer.state.fn == "fit" and not self.trainer.sanity_checking
        if fitting and not extra and self.schedulers.follows_validation:
            self.schedulers.end_validation(float(self.psnr.compute()))

    def _infer(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return fused images, predictions and weights of images of any size, on the CPU if the device is too small."""
        if len(lr) == 0:
            predictions = hr.unsqueeze(1).expand(-1, self.network.tree.num_leaves, -1, -1, -1)
            return hr, predictions, predictions[:, :, 0]
        outputs = Inference().outputs(self.network, lr)
        assert (outputs.predictions is not None) and (outputs.weights is not None)  # noqa: PT018
        return outputs.sr, outputs.predictions, outputs.weights

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the description of the network and its data, and the state of the schedulers."""
        data = PairDataModule.of(self.trainer)
        checkpoint[KEY] = describe(self.network, data.describe() if data else None)
        if self.schedulers.optimizers:
            checkpoint[SCHEDULES] = self.schedulers.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state of the schedulers; without a trainer, load the averaged weights."""
        self._resumed = checkpoint.get(SCHEDULES, {})
        if AVERAGE in checkpoint and not is_attached(self):  # load_from_checkpoint
            average = {PREFIX + name: value for name, value in checkpoint[AVERAGE].items()}
            checkpoint["state_dict"] = checkpoint["state_dict"] | average
