"""Many images through Lightning's predict loop: each once over all devices, reading and writing beside computing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from d2csr.errors import UserError
from d2csr.inference.runner import Inference, Progress
from d2csr.models import D2CSR
from d2csr.upscaling.image_reader import Picture
from d2csr.upscaling.image_writer import check_folder, remove_partial, write_picture
from d2csr.upscaling.names import InputImage, plan_targets
from d2csr.upscaling.pipeline import Bars, Job, Options, ReadAhead, Writer

_log = logging.getLogger(__name__)

TERMINATED = 143  # as a shell reports a command that SIGTERM ended


def upscale_files(
    model: D2CSR,
    images: Sequence[InputImage],
    output: str | Path,
    trainer: pl.Trainer,
    inference: Inference,
    options: Options,
    *,
    show_progress: bool = False,
) -> list[str]:
    """Super-resolve images into a folder; a result appears whole or not at all.

    Args:
        model: as :func:`d2csr.load_model` gives it.
        images: what :func:`d2csr.upscaling.names.find_images` found.
        output: the folder; made if it is missing.
        trainer: Lightning's, which says on what devices.
        inference: how to run the model.
        options: how to read and write.
        show_progress: bars on the terminal, over images and over the strips of each.

    Returns:
        A message for each image of all processes that could not be done; all others are done. On the first process
        only: empty on the others.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C; no incomplete file is left.
        SystemExit: the process was told to end, by SLURM for example; it does so after the present image.
        UserError: the output folder cannot be written to, or two results would have one name.
    """
    output = Path(output).expanduser()
    planned = plan_targets(images, output, model.tree.leaves, save=options.save, form=options.form)
    jobs = [Job(i, image, targets) for i, (image, targets) in enumerate(zip(images, planned, strict=True), start=1)]
    token = uuid4().hex
    check_folder(output, token)
    task = UpscaleTask(model, jobs, token, inference, options, show_progress)
    try:
        trainer.predict(task, return_predictions=False)
    except SIGTERMException:  # whose own exit status is that of success
        _log.error("terminated")
        raise SystemExit(TERMINATED if trainer.is_global_zero else 0) from None
    except SystemExit:
        # Lightning's answer to Ctrl-C, by which time it has killed the other processes in the middle of anything.
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        task.bars.close()
        task.writer.close(cancel=True)
        if trainer.is_global_zero:
            remove_partial(output, token)
    return task.problems


class UpscaleTask(pl.LightningModule):
    """Predicts one image at a time, and hands the result to a thread that writes it.

    Args:
        network: the model.
        jobs: all images, of all processes.
        token: for the names of incomplete files, known to the first process, which clears up.
        inference: how to run the model.
        options: how to read and write.
        show_progress: bars on the terminal.
    """

    def __init__(
        self, network: D2CSR, jobs: list[Job], token: str, inference: Inference, options: Options, show_progress: bool
    ) -> None:
        super().__init__()
        self.network = network
        self.jobs = jobs
        self.token = token
        self.inference = inference
        self.options = options
        self.show_progress = show_progress
        self.writer = Writer()
        self.problems: list[str] = []
        self.bars = Bars(0, enabled=False)

    def predict_dataloader(self) -> ReadAhead:
        """Return this process's images: every n-th of the first process's list, so that all go by the same one."""
        self.jobs, self.token = self.trainer.strategy.broadcast((self.jobs, self.token))
        return ReadAhead(self.jobs[self.trainer.global_rank :: self.trainer.world_size], self.options)

    def on_predict_start(self) -> None:
        """Show the bars: those of the first process stand for all."""
        own = len(self.jobs[self.trainer.global_rank :: self.trainer.world_size])
        self.bars = Bars(own, enabled=self.show_progress and self.trainer.is_global_zero)

    def transfer_batch_to_device(self, batch: Job, device: torch.device, dataloader_idx: int) -> Job:
        """Leave the image on the CPU, in its own bits: the inference moves what it needs."""
        return batch

    def predict_step(self, batch: Job, batch_idx: int) -> None:
        """Super-resolve one image; what is wrong with it is kept for the end, and the rest goes on."""
        if self.trainer.received_sigterm:  # Lightning only notes it; the loops of training alone heed it
            raise SIGTERMException
        total = len(self.jobs)
        if batch.problem is not None:
            self._report(batch.problem)
        elif batch.picture is None:
            _log.info("%d/%d %s is there already", batch.number, total, batch.image.name)
        else:
            result = self._enlarged(batch, batch.picture)
            if result is not None:
                self.writer.submit(lambda: self._write(batch, result))
        self.bars.next_image()

    def on_predict_epoch_end(self) -> None:
        """Wait until everything is written, and bring all processes' problems to the first one."""
        self.problems += self.writer.close()
        self.bars.close()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everywhere: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(everywhere, self.problems)
            self.problems = [problem for problems in everywhere for problem in problems]
            if not self.trainer.is_global_zero:
                self.problems = []

    def _enlarged(self, job: Job, picture: Picture) -> Enlarged | None:
        self.bars.start_image(job.image.path.name)
        parts = any(target.kind != "sr" for target in job.targets)
        try:
            return enlarge(self.network, self.inference, picture, parts=parts, progress=self.bars.advance)
        except UserError as error:
            self._report(f"{job.image.path}: {error}")
        except (MemoryError, torch.OutOfMemoryError):
            self._report(f"{job.image.path}: the memory ran out. A smaller budget may help: inference.memory=2GB.")
        return None

    def _report(self, problem: str) -> None:
        _log.error("failed: %s", problem)
        self.problems.append(problem)

    def _write(self, job: Job, result: Enlarged) -> str | None:
        try:
            for target in job.targets:
                of_leaf = result.leaves if target.kind == "leaves" else result.weights
                picture = result.sr if target.kind == "sr" else of_leaf[target.leaf]
                write_picture(picture, target.path, quality=self.options.quality, token=self.token)
        except UserError as error:
            return str(error)
        _log.info("%d/%d %s", job.number, len(self.jobs), job.targets[0].path)
        return None


_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Enlarged:
    """What came of one picture.

    Attributes:
        sr: the result, s times as large, in the form of the picture.
        leaves: the prediction of each leaf by its name, without alpha; empty unless asked for.
        weights: its share in the result, grey, 8 bits, white for 1; empty unless asked for.
    """

    sr: Picture
    leaves: dict[str, Picture] = field(default_factory=dict)
    weights: dict[str, Picture] = field(default_factory=dict)


def enlarge(
    model: D2CSR,
    inference: Inference,
    picture: Picture,
    *,
    parts: bool = False,
    progress: Progress | None = None,
) -> Enlarged:
    """Super-resolve a picture.

    The network knows colours only: a grey picture goes through it as one whose channels agree, and the luminance of
    what comes out is the result; so does alpha, except that what is wholly opaque or transparent around a pixel stays
    precisely so.

    Args:
        model: in eval mode.
        inference: how to run it.
        picture: to enlarge.
        parts: give leaves and weights too, which takes six times the memory for the result.
        progress: called with the fraction of the work that is done, up to 1.

    Raises:
        ConfigError: the memory does not suffice even for the smallest tiles.
    """
    alpha = picture.alpha
    alpha_takes = 0.0 if alpha is None or alpha.min() == alpha.max() else 0.5
    first = _share(progress, 0.0, 1 - alpha_takes)
    outputs = inference.outputs(model, _to_tensor(picture.colour), parts=parts, progress=first)
    enlarged_alpha = None
    if alpha is not None:
        enlarged_alpha = _enlarge_alpha(model, inference, alpha, _share(progress, 1 - alpha_takes, alpha_takes))

    def to_picture(image: Tensor, alpha: np.ndarray | None = None) -> Picture:
        return Picture(_to_array(image, picture.colour), alpha, picture.icc)

    leaves, weights = {}, {}
    if parts:
        assert outputs.predictions is not None
        assert outputs.weights is not None
        for index, leaf in enumerate(model.tree.leaves):
            leaves[leaf] = to_picture(outputs.predictions[0, index])
            shades = outputs.weights[0, index].clamp(0, 1).mul(255).round_().byte()
            weights[leaf] = Picture(shades.unsqueeze(-1).numpy())
    return Enlarged(to_picture(outputs.sr[0], enlarged_alpha), leaves, weights)


def _enlarge_alpha(model: D2CSR, inference: Inference, alpha: np.ndarray, progress: Progress | None) -> np.ndarray:
    if alpha.min() == alpha.max():
        height, width = (extent * model.scale for extent in alpha.shape)
        return np.full((height, width), alpha.flat[0])
    sr = _to_array(inference(model, _to_tensor(alpha[..., None]), progress)[0], alpha[..., None])[..., 0]
    plane = torch.from_numpy(alpha.astype(np.float32))[None, None]
    highest = F.max_pool2d(plane, 3, stride=1, padding=1)
    lowest = -F.max_pool2d(-plane, 3, stride=1, padding=1)
    even = (highest == lowest)[0, 0].numpy()
    for axis in (0, 1):
        even, alpha = even.repeat(model.scale, axis), alpha.repeat(model.scale, axis)
    return np.where(even, alpha, sr)


def _to_tensor(colour: np.ndarray) -> Tensor:
    """Turn H×W×C into 1×3×H×W, in [0, 1]."""
    figures = colour.astype(np.float32) / np.iinfo(colour.dtype).max
    return torch.from_numpy(figures).permute(2, 0, 1)[None].expand(1, 3, -1, -1).contiguous()


def _to_array(image: Tensor, like: np.ndarray) -> np.ndarray:
    """Turn 3×H×W into H×W×C with the channels and the depth of another image; the tensor is used up."""
    if like.shape[-1] == 1:
        image = torch.einsum("chw,c->hw", image, image.new_tensor(_LUMA)).unsqueeze(0)
    figures = image.clamp_(0, 1).mul_(np.iinfo(like.dtype).max).round_().permute(1, 2, 0)
    if like.dtype == np.uint8:
        return figures.byte().contiguous().numpy()
    return figures.contiguous().numpy().astype(like.dtype)


def _share(progress: Progress | None, start: float, share: float) -> Progress | None:
    return None if progress is None else lambda fraction: progress(start + share * fraction)
