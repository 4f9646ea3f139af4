"""Reading ahead and writing behind, in threads: decoders and encoders let other threads run."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from tqdm import tqdm

from d2csr.data.images import MAX_PIXELS
from d2csr.errors import ConfigError, UserError
from d2csr.upscaling.image_reader import Picture, read_picture
from d2csr.upscaling.image_writer import DEFAULT_QUALITY
from d2csr.upscaling.names import InputImage, Target

_log = logging.getLogger(__name__)

_WAITING = 2  # results that wait for the disk: with more, a slow disk would fill the memory


@dataclass(frozen=True)
class Options:
    """How images are read and results written.

    Attributes:
        save: of ``sr``, ``leaves`` and ``weights``.
        form: ``png``, ``jpg``, ``webp``, ``tif``, or ``same`` for that of the image.
        quality: of JPEG and WebP.
        overwrite: make results anew that are there already, instead of skipping them.
        max_pixels: images that claim to have more are refused.

    Raises:
        ConfigError: a figure is out of its range.
    """

    save: tuple[str, ...] = ("sr",)
    form: str = "png"
    quality: int = DEFAULT_QUALITY
    overwrite: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        for name, most in (("quality", 100), ("max_pixels", None)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1 or (most is not None and value > most):
                span = f"from 1 to {most}" if most else "from 1 up"
                raise ConfigError(f"{name}: expected a whole number {span}, got {value!r}.")


@dataclass(frozen=True)
class Job:
    """One image and what is to be made of it.

    Attributes:
        number: its place in the list, from 1.
        image: where it lies.
        targets: the files to make; those that are there are left out when it is read.
        picture: the image, once it is read.
        problem: why it could not be.
    """

    number: int
    image: InputImage
    targets: list[Target]
    picture: Picture | None = None
    problem: str | None = None


@dataclass
class ReadAhead:
    """Yields jobs with their pictures; while one is worked on, the next is read.

    A thread does it and not a DataLoader's worker: a picture need not pass through shared memory then, which containers
    keep small.

    Attributes:
        jobs: without pictures.
        options: how to read.
    """

    jobs: Sequence[Job]
    options: Options

    def __iter__(self) -> Iterator[Job]:
        with ThreadPoolExecutor(1, "read") as thread:
            ahead: Future[Job] | None = None
            for job in self.jobs:
                following = thread.submit(self._read, job)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()

    def _read(self, job: Job) -> Job:
        targets = [target for target in job.targets if self.options.overwrite or not target.path.exists()]
        if not targets:
            return job
        try:
            picture = read_picture(job.image.path, self.options.max_pixels)
        except UserError as error:
            return Job(job.number, job.image, targets, problem=str(error))
        return Job(job.number, job.image, targets, picture)


@dataclass
class Writer:
    """A thread that writes results while the next one is computed."""

    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "write"))
    waiting: deque[Future[str | None]] = field(default_factory=deque)
    problems: list[str] = field(default_factory=list)

    def submit(self, write: Callable[[], str | None]) -> None:
        """Have something written, once there are few enough others; it returns what went wrong, if anything."""
        while len(self.waiting) >= _WAITING:
            self._collect()
        self.waiting.append(self.thread.submit(write))

    def close(self, cancel: bool = False) -> list[str]:
        """Wait for all, or only for the one that is being written, and return what went wrong."""
        self.thread.shutdown(wait=True, cancel_futures=cancel)
        while self.waiting:
            self._collect()
        problems, self.problems = self.problems, []
        return problems

    def _collect(self) -> None:
        future = self.waiting.popleft()
        problem = None if future.cancelled() else future.result()
        if problem is not None:
            _log.error("failed: %s", problem)
            self.problems.append(problem)


class Bars:
    """Two bars, gone once they are done; nothing at all where standard error is no terminal.

    Args:
        images: how many there are.
        enabled: show them.
    """

    def __init__(self, images: int, *, enabled: bool) -> None:
        hidden = None if enabled else True  # None: where there is no terminal
        self._images = tqdm(total=images, desc="images", unit="image", disable=hidden, leave=False)
        self._strips = tqdm(
            total=100, disable=hidden, leave=False, position=1, bar_format="{l_bar}{bar}| {elapsed}<{remaining}"
        )

    def start_image(self, name: str) -> None:
        """Begin the lower bar anew, under the name of an image."""
        self._strips.reset()
        self._strips.set_description(name)

    def advance(self, fraction: float) -> None:
        """Set the lower bar to a fraction of the image, up to 1."""
        self._strips.update(round(100 * fraction) - self._strips.n)

    def next_image(self) -> None:
        """Count an image as done."""
        self._images.update()

    def close(self) -> None:
        """Take the bars away."""
        self._strips.close()
        self._images.close()
