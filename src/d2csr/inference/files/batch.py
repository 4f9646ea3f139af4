"""Many images through Lightning's predict loop: each once over all devices, reading and writing beside computing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException

from d2csr.errors import UserError
from d2csr.inference.files.encode import check_folder, remove_partial, write_picture
from d2csr.inference.files.names import InputImage, plan_targets
from d2csr.inference.files.pictures import Picture
from d2csr.inference.files.pipeline import Job, Options, ReadAhead, Writer
from d2csr.inference.files.progress import Bars
from d2csr.inference.files.work import Enlarged, enlarge
from d2csr.inference.run import Inference
from d2csr.models import D2CSR

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
        images: what :func:`d2csr.inference.files.names.find_images` found.
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
