"""The prediction task: images shared among devices by Lightning's predict loop."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from itertools import chain
from pathlib import Path
from uuid import uuid4

import pytorch_lightning as pl
from tqdm import tqdm

from d2csr.distributed import gather
from d2csr.errors import DataError, UserError, is_out_of_memory, printable
from d2csr.files import user_path
from d2csr.inference.runner import Inference
from d2csr.inference.strips import Progress, part_of
from d2csr.models import SRNetwork
from d2csr.signals import statuses_of_signals, stop_if_terminated
from d2csr.upscaling.image_reader import ImageArray
from d2csr.upscaling.image_writer import WriteQueue, check_folder, write_image
from d2csr.upscaling.names import InputImage, plan_jobs
from d2csr.upscaling.pipeline import Job, Options, read_ahead, size_check, upscale_image

_log = logging.getLogger(__name__)

_BAR_FORMAT = "{percentage:3.0f}%|{bar}| {n:.1f}/{total} images [{elapsed}<{remaining}{postfix}]"


def upscale_files(
    model: SRNetwork,
    images: Sequence[InputImage],
    output: str | Path,
    trainer: pl.Trainer,
    inference: Inference,
    options: Options,
    *,
    show_progress: bool = False,
) -> list[str]:
    """Super-resolve images into a folder; each result appears only when it is complete.

    Returns:
        A message for each image of any rank that failed.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C; no incomplete file is left.
        SystemExit: SIGTERM arrived; the current image is finished first.
        UserError: the output folder cannot be written to, or two results would have one name.
    """
    output = user_path(output)
    jobs = plan_jobs(images, output, model.tree.leaves, options)
    if trainer.is_global_zero and len(jobs) < len(images):
        _log.info("%d of %d images have their results already.", len(images) - len(jobs), len(images))
    check_folder(output)
    task = UpscaleTask(model, jobs, inference, options, show_progress)
    try:
        with statuses_of_signals(trainer):
            trainer.predict(task, [[0]], return_predictions=False)  # one batch: the step reads the images
    finally:
        task.writer.close(cancel=True)
        for incomplete in output.rglob(f".*.{task.token}*.partial") if trainer.is_global_zero else ():
            incomplete.unlink(missing_ok=True)  # of a rank that was killed
    return task.problems


class UpscaleTask(pl.LightningModule):
    """Super-resolves a rank's share of the jobs in a single step; threads write the results."""

    def __init__(
        self, network: SRNetwork, jobs: list[Job], inference: Inference, options: Options, show_progress: bool
    ) -> None:
        super().__init__()
        self.network = network
        self.jobs = jobs
        self.token = uuid4().hex  # part of the names of incomplete files
        self.inference = inference
        self.options = options
        self.show_progress = show_progress
        self.writer = WriteQueue()
        self.problems: list[str] = []

    def predict_step(self, batch: int) -> None:
        """Super-resolve every n-th image of rank zero's list; rank zero shows its progress."""
        self.jobs, self.token = self.trainer.strategy.broadcast((self.jobs, self.token))
        own = self.jobs[self.trainer.global_rank :: self.trainer.world_size]
        check = size_check(self.network, self.inference, keep_leaves=set(self.options.save) != {"sr"})
        hidden = None if self.show_progress and self.trainer.is_global_zero else True
        with tqdm(total=len(own), unit="image", bar_format=_BAR_FORMAT, leave=False, disable=hidden) as bar:

            def show(fraction: float) -> None:
                bar.update(fraction * len(own) - bar.n)

            for count, (job, reading) in enumerate(read_ahead(own, self.options.max_pixels, check)):
                stop_if_terminated(self.trainer)
                bar.set_postfix_str(printable(job.path.name))
                progress = part_of(show, count, len(own))
                self._upscale(job, reading, progress)
                progress(1.0)
            self.writer.close()
        self.problems = list(chain.from_iterable(gather(self.problems)))

    def _upscale(self, job: Job, reading: Future[ImageArray], progress: Progress) -> None:
        keep_leaves = any(name != "sr" for name in job.targets)
        try:
            image = reading.result()
            results = upscale_image(self.network, self.inference, image, keep_leaves=keep_leaves, progress=progress)
        except UserError as error:
            self._report(str(error) if isinstance(error, DataError) else f"{job.path}: {error}")
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._report(f"{job.path}: out of memory. A smaller budget may help: inference.memory=2GB.")
        else:
            size = sum(result.colour.nbytes for result in results.values())
            self.writer.submit(partial(self._write, job, results), size)

    def _write(self, job: Job, results: dict[str, ImageArray]) -> None:
        """Write the files of an image, in a thread."""
        options = {"quality": self.options.quality, "png_compression": self.options.png_compression}
        try:
            for name, path in job.targets.items():
                write_image(results[name], path, token=self.token, **options)
        except UserError as error:
            self._report(str(error))
        else:
            _log.info("%d/%d %s", job.number, len(self.jobs), printable(str(next(iter(job.targets.values())))))

    def _report(self, problem: str) -> None:
        _log.error("failed: %s", printable(problem))
        self.problems.append(problem)
