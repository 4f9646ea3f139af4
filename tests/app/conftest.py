"""The server of the page in a thread of its own."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvicorn

from app_site import MEMORY, Site
from d2csr.app.job_queue import Job, JobQueue, Report
from d2csr.app.processing import Limits, NamedModel, process
from d2csr.app.server import listen
from d2csr.app.web_app import build_app
from d2csr.inference import Inference


@pytest.fixture
def serve(random_model, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Start servers with a model of scale 2 and one of scale 4."""
    with ExitStack() as stack:

        def start(**limits: int) -> Site:
            models = [NamedModel("two", random_model(2)), NamedModel("four", random_model(4, seed=1))]
            go = threading.Event()
            go.set()
            checked = Limits(**{"max_pixels": 10_000, "max_megabytes": 1, "queue": 10, **limits})
            real = functools.partial(process, models=models, inference=Inference(MEMORY), max_pixels=checked.max_pixels)

            def work(job: Job, report: Report) -> None:
                while not go.wait(0.02):
                    report(0.25)
                real(job, report)

            folder = tmp_path / "uploads"
            folder.mkdir()
            queue = JobQueue(work, folder, checked.queue)
            stack.callback(queue.close)
            listening = listen("127.0.0.1", 0)
            app = build_app(queue, models, checked, ["sr.example.org"])
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="warning", access_log=False))
            thread = threading.Thread(target=server.run, args=([listening],))
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            return Site(listening.getsockname()[1], folder, go, models)

        yield start
