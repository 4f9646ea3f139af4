from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d2csr.app import job_queue
from d2csr.app.job_queue import DONE, FAILED, RUNNING, Job, JobQueue, Report, RequestError
from d2csr.errors import DataError

PATIENCE = 60


class Worker:
    """Work that starts and ends when the test says so."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.started = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, job: Job, report: Report) -> None:
        self.names.append(job.name)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.started.release()
        try:
            assert self.go.acquire(timeout=PATIENCE)
            report(0.5)
            if job.name == "bad":
                raise DataError("a bad image")
            if job.name == "defect":
                raise ZeroDivisionError
        finally:
            self.at_once -= 1

    def wait(self) -> None:
        assert self.started.acquire(timeout=PATIENCE)

    def end(self) -> None:
        self.go.release()


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def now() -> list[float]:
    """The time of the queue's clock, in seconds."""
    return [0.0]


@pytest.fixture
def queue(worker: Worker, tmp_path: Path, now: list[float]) -> Iterator[JobQueue]:
    made = JobQueue(worker, tmp_path, 3, clock=lambda: now[0])
    yield made
    for _ in range(50):
        worker.end()
    made.close(PATIENCE)


def submit(queue: JobQueue, name: str) -> Job:
    job = queue.reserve(name, 0, keep_leaves=False)
    job.source.write_bytes(b"upload")
    queue.submit(job)
    return job


def finish(queue: JobQueue, worker: Worker, *jobs: Job) -> None:
    """Let jobs end one after the other, and wait until the thread has left the last one."""
    for _ in jobs:
        worker.wait()
        worker.end()
    settle(lambda: all(job.state in (DONE, FAILED) for job in jobs))


def settle(holds: Callable[[], bool]) -> None:
    for _ in range(100 * PATIENCE):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("nothing happened")


def test_images_are_computed_one_at_a_time_in_their_order(queue: JobQueue, worker: Worker) -> None:
    jobs = [submit(queue, name) for name in ("a", "b", "c")]
    worker.wait()
    assert [job.state for job in jobs] == [RUNNING, "waiting", "waiting"]
    assert [queue.ahead(job) for job in jobs] == [0, 1, 2]
    worker.end()
    worker.wait()
    assert [queue.ahead(job) for job in jobs[1:]] == [0, 1]
    worker.end()
    finish(queue, worker, jobs[2])
    assert worker.names == ["a", "b", "c"]
    assert worker.most_at_once == 1
    assert {job.state for job in jobs} == {DONE}


def test_an_image_that_is_still_uploaded_lets_others_pass(queue: JobQueue, worker: Worker) -> None:
    slow = queue.reserve("slow", 0, keep_leaves=False)
    quick = submit(queue, "quick")
    worker.wait()
    queue.submit(slow)
    assert (queue.ahead(quick), queue.ahead(slow)) == (0, 1)


def test_a_full_queue_refuses_and_a_finished_image_makes_room(queue: JobQueue, worker: Worker) -> None:
    first = submit(queue, "a")
    queue.reserve("uploading", 0, keep_leaves=False)
    submit(queue, "c")
    with pytest.raises(RequestError, match="queue is full: 3 images") as refused:
        queue.reserve("d", 0, keep_leaves=False)
    assert refused.value.status == 503
    finish(queue, worker, first)
    queue.reserve("d", 0, keep_leaves=False)


def test_a_waiting_image_is_cancelled_at_once_and_never_computed(queue: JobQueue, worker: Worker) -> None:
    first, second, third = (submit(queue, name) for name in ("a", "b", "c"))
    worker.wait()
    queue.remove(second)
    assert queue.find(second.id) is None
    assert not second.folder.exists()
    assert queue.ahead(third) == 1
    worker.end()
    finish(queue, worker, third)
    assert first.state == DONE
    assert worker.names == ["a", "c"]


def test_a_running_image_is_cancelled_at_its_next_report(queue: JobQueue, worker: Worker) -> None:
    running, waiting = submit(queue, "a"), submit(queue, "b")
    worker.wait()
    queue.remove(running)
    assert queue.find(running.id) is None
    assert queue.ahead(waiting) == 1  # it still computes
    worker.end()
    worker.wait()
    assert queue.ahead(waiting) == 0
    assert not running.folder.exists()


@pytest.mark.parametrize(("name", "message"), [("bad", "a bad image"), ("defect", "log of the server")])
def test_a_failure_ends_its_image_alone(queue: JobQueue, worker: Worker, name: str, message: str) -> None:
    failing, good = submit(queue, name), submit(queue, "good")
    finish(queue, worker, failing, good)
    assert failing.state == FAILED
    assert message in failing.error
    assert good.state == DONE


def test_the_upload_is_removed_when_it_is_done(queue: JobQueue, worker: Worker) -> None:
    job = submit(queue, "a")
    finish(queue, worker, job)
    assert job.folder.is_dir()
    assert not job.source.exists()


def test_unfinished_images_of_closed_pages_are_dropped(queue: JobQueue, worker: Worker, now: list[float]) -> None:
    running, closed, asked = (submit(queue, name) for name in ("a", "b", "c"))
    worker.wait()
    now[0] = job_queue.ABANDONED + 1
    assert queue.find(asked.id) is asked
    worker.end()  # the report finds that nobody has asked for it
    finish(queue, worker, asked)
    assert worker.names == ["a", "c"]
    assert not running.folder.exists()
    assert not closed.folder.exists()


def test_finished_images_are_kept_for_a_while(queue: JobQueue, worker: Worker, now: list[float]) -> None:
    old = submit(queue, "old")
    finish(queue, worker, old)
    now[0] = job_queue.ABANDONED + 1
    submit(queue, "new")
    assert queue.find(old.id) is old
    now[0] += job_queue.KEPT + 1
    queue.reserve("x", 0, keep_leaves=False)
    assert queue.find(old.id) is None
    assert not old.folder.exists()


def test_only_the_last_finished_images_are_kept(queue: JobQueue, worker: Worker, monkeypatch) -> None:
    monkeypatch.setattr(job_queue, "MAX_FINISHED", 2)
    jobs = []
    for name in "abcd":
        jobs.append(submit(queue, name))
        finish(queue, worker, jobs[-1])
    queue.reserve("x", 0, keep_leaves=False)
    assert [queue.find(job.id) is job for job in jobs] == [False, False, True, True]


def test_the_end_cancels_everything_and_removes_the_files(worker: Worker, tmp_path: Path) -> None:
    queue = JobQueue(worker, tmp_path, 5)
    submit(queue, "a")
    submit(queue, "b")
    worker.wait()
    worker.end()
    queue.close(PATIENCE)
    assert not [thread for thread in threading.enumerate() if thread is queue._thread]
    assert list(tmp_path.iterdir()) == []
