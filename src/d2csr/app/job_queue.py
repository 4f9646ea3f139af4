"""Queue of uploaded images: one is computed at a time, by a thread of its own."""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from d2csr.errors import UserError


class RequestError(UserError):
    """A request that is refused: the message is shown on the page, ``status`` is that of the HTTP response."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


# Background tabs of browsers may run their timers only once a minute.
ABANDONED = 180.0  # seconds without a question about an unfinished job, after which its page is considered closed
KEPT = 3600.0  # seconds without a question about a finished job, after which its files are removed
MAX_FINISHED = 20  # jobs whose files are kept; the oldest is removed first
_SWEEP = 30.0  # seconds between two looks for jobs to remove

UPLOADING, WAITING, RUNNING, DONE, FAILED = "uploading", "waiting", "running", "done", "failed"
_FINISHED = (DONE, FAILED)

_log = logging.getLogger(__name__)

Report = Callable[[float], None]


class Cancelled(Exception):  # noqa: N818 - the user asked for it
    """The job was cancelled, or its page was closed."""


@dataclass(eq=False)
class Job:
    """An uploaded image and its results, which are files in a folder of their own."""

    name: str  # of the uploaded file, printable; for messages and for the names of downloads
    checkpoint: int  # index of the model
    keep_leaves: bool  # also show predictions and weights
    folder: Path
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))  # knowing it permits to see the images
    state: str = UPLOADING
    progress: float = 0.0  # the fraction of the work that is done
    error: str = ""
    notes: list[str] = field(default_factory=list)  # remarks on the result
    size: tuple[int, int] | None = None  # width and height of the result
    files: list[str] = field(default_factory=list)  # names of the images in the folder
    cancelled: bool = False
    seen: float = 0.0  # when its page last asked for it

    @property
    def source(self) -> Path:
        """The uploaded file. Its own name never reaches the file system."""
        return self.folder / "upload"


class JobQueue:
    """Jobs in the order of their uploads, and a thread that works on them one by one.

    Args:
        work: computes the results of a job. It calls its second argument with the fraction that is done, which raises
            Cancelled if the job is not wanted any more, and raises a UserError for a bad image.
        folder: for the files; each job has its own below it.
        places: unfinished jobs at most.
        clock: seconds from any start.
    """

    def __init__(
        self,
        work: Callable[[Job, Report], None],
        folder: Path,
        places: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work = work
        self._folder = folder
        self._places = places
        self._clock = clock
        self._jobs: dict[str, Job] = {}  # those after the upload in the order of submission
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="d2csr-app", daemon=True)
        self._thread.start()

    def reserve(self, name: str, checkpoint: int, keep_leaves: bool) -> Job:
        """Return a new job with a place in the queue and a folder; raise a RequestError if the queue is full."""
        with self._changed:
            self._sweep()
            unfinished = sum(job.state not in _FINISHED for job in self._jobs.values())
            if unfinished >= self._places:
                raise RequestError(f"The queue is full: {unfinished} images. Try again in some minutes.", 503)
            job = Job(name, checkpoint, keep_leaves, self._folder / secrets.token_hex(8), seen=self._clock())
            job.folder.mkdir(mode=0o700)
            self._jobs[job.id] = job
            return job

    def submit(self, job: Job) -> None:
        """Let a job, whose image is in its folder, wait for its turn."""
        with self._changed:
            job.state = WAITING
            self._jobs[job.id] = self._jobs.pop(job.id)
            self._changed.notify_all()

    def find(self, job_id: str) -> Job | None:
        """Return a job, and remember that its page is open."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or job.cancelled:
                return None
            job.seen = self._clock()
            return job

    def ahead(self, job: Job) -> int:
        """Return how many images are computed before that of a job, counting the present one."""
        with self._changed:
            before = list(self._jobs.values())
            before = before[: before.index(job)] if job in before else []
            return sum(other.state in (WAITING, RUNNING) for other in before)

    def remove(self, job: Job) -> None:
        """Cancel a job and remove its files; a running one ends at its next report."""
        with self._changed:
            job.cancelled = True
            if job.state != RUNNING:
                self._forget(job)

    def close(self, patience: float = 10.0) -> None:
        """Cancel all jobs and end the thread; wait for it at most ``patience`` seconds."""
        with self._changed:
            self._closed = True
            for job in list(self._jobs.values()):
                self.remove(job)
            self._changed.notify_all()
        self._thread.join(patience)

    def _loop(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._work(job, lambda fraction, job=job: self._report(job, fraction))  # type: ignore[misc]
            except Cancelled:
                pass
            except UserError as error:
                job.error = str(error)
            except Exception:
                _log.exception("an image failed")
                job.error = "An error in the program. The log of the server describes it."
            with self._changed:
                job.state = FAILED if job.error else DONE
                job.source.unlink(missing_ok=True)
                if job.cancelled:
                    self._forget(job)

    def _report(self, job: Job, fraction: float) -> None:
        job.progress = fraction
        with self._changed:
            self._sweep()
        if job.cancelled:
            raise Cancelled

    def _next(self) -> Job | None:
        """Wait for a job; return None once the queue is closed."""
        with self._changed:
            while not self._closed:
                self._sweep()
                for job in self._jobs.values():
                    if job.state == WAITING:
                        job.state = RUNNING
                        return job
                self._changed.wait(_SWEEP)
            return None

    def _sweep(self) -> None:
        now = self._clock()
        finished = [job for job in self._jobs.values() if job.state in _FINISHED]
        stale = [job for job in finished if now - job.seen > KEPT] + finished[:-MAX_FINISHED]
        stale += [job for job in self._jobs.values() if job.state not in _FINISHED and now - job.seen > ABANDONED]
        for job in stale:
            self.remove(job)

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        shutil.rmtree(job.folder, ignore_errors=True)
