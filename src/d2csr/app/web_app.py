"""The page and its HTTP interface."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from d2csr.app.job_queue import Job, JobQueue, RequestError
from d2csr.app.processing import Limits, NamedModel, check_upload, named_errors
from d2csr.app.protection import Protection
from d2csr.colormap import VIRIDIS
from d2csr.errors import printable

PAGE = Path(__file__).parent / "page"
UPLOAD_SECONDS = 120  # for one file


def build_app(queue: JobQueue, models: Sequence[NamedModel], limits: Limits, names: Collection[str]) -> Starlette:
    """Return the ASGI application of the page; ``names`` are further host names of the server."""
    interface = _Interface(queue, models, limits)
    routes = [
        Route("/viridis.png", _viridis),
        Route("/api/settings", interface.settings),
        Route("/api/jobs", interface.create, methods=["POST"]),
        Route("/api/jobs/{id}", interface.show),
        Route("/api/jobs/{id}", interface.remove, methods=["DELETE"]),
        Route("/api/jobs/{id}/{name}.png", interface.image),
        Mount("/", StaticFiles(directory=PAGE, html=True)),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Protection, names=names)],
        exception_handlers={RequestError: _as_json, HTTPException: _as_json},
    )


class _Interface:
    """Handlers of the requests below ``/api``."""

    def __init__(self, queue: JobQueue, models: Sequence[NamedModel], limits: Limits) -> None:
        self._queue = queue
        self._models = models
        self._limits = limits

    async def settings(self, request: Request) -> Response:
        """Return the models and the limits."""
        models = [{"name": entry.name, "scale": entry.model.scale} for entry in self._models]
        limits = {"max_pixels": self._limits.max_pixels, "max_bytes": self._limits.max_bytes}
        return JSONResponse({"models": models, **limits})

    async def create(self, request: Request) -> Response:
        """Receive an image as the body of the request, check its header, and put it into the queue."""
        query = request.query_params
        if request.headers.get("content-type") != "application/octet-stream":  # no form of a foreign page can send it
            raise RequestError("The content type must be application/octet-stream.", 415)
        checkpoint = query.get("checkpoint", "0")
        if not (checkpoint.isascii() and checkpoint.isdecimal() and int(checkpoint[:9]) < len(self._models)):
            raise RequestError("There is no such checkpoint.", 400)
        name = printable(query.get("name", "")).replace("\n", " ")[:200] or "image"
        job = self._queue.reserve(name, int(checkpoint), query.get("leaves") == "1")
        try:
            await asyncio.wait_for(_receive(request, job, self._limits.max_bytes), UPLOAD_SECONDS)
            await run_in_threadpool(check_upload, job, self._limits.max_pixels)
        except BaseException as error:
            self._queue.remove(job)
            if isinstance(error, asyncio.TimeoutError):
                raise RequestError(f"The upload took more than {UPLOAD_SECONDS} seconds.", 408) from None
            if isinstance(error, ClientDisconnect):
                return Response(status_code=400)  # nobody reads it
            raise
        self._queue.submit(job)
        return JSONResponse(self._status(job), 201)

    async def show(self, request: Request) -> Response:
        """Return the state of a job."""
        return JSONResponse(self._status(self._job(request)))

    async def remove(self, request: Request) -> Response:
        """Cancel a job and remove its files."""
        self._queue.remove(self._job(request))
        return Response(status_code=204)

    async def image(self, request: Request) -> Response:
        """Return an image of a job; with ``download=1`` to be saved under the name of the upload."""
        job, name = self._job(request), request.path_params["name"]
        if name not in job.files:
            raise RequestError("There is no such image.", 404)
        path = job.folder / f"{name}.png"
        if request.query_params.get("download") != "1":
            return FileResponse(path)
        return FileResponse(path, filename=self._download_name(job, name))

    def _job(self, request: Request) -> Job:
        job = self._queue.find(request.path_params["id"])
        if job is None:
            raise RequestError("This image is no longer on the server. Send it again.", 404)
        return job

    def _status(self, job: Job) -> dict[str, Any]:
        return {
            "id": job.id,
            "state": job.state,
            "ahead": self._queue.ahead(job),
            "progress": job.progress,
            "error": job.error,
            "notes": job.notes,
            "size": job.size,
            "files": job.files if job.state == "done" else [],
            "download": self._download_name(job, "sr"),
        }

    def _download_name(self, job: Job, name: str) -> str:
        stem = re.sub(r'[\\/:*?"<>|\x00-\x1f]+', "_", Path(job.name).stem)[:100].strip(". ") or "image"
        kind = "" if name == "sr" else f"_{name}"
        return f"{stem}_x{self._models[job.checkpoint].model.scale}{kind}.png"


async def _receive(request: Request, job: Job, max_bytes: int) -> None:
    """Write the body of a request into the file of a job."""
    too_large = RequestError(f"{job.name}: larger than the limit of {max_bytes // 10**6} MB.", 413)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:18]) > max_bytes:
        raise too_large
    received = 0
    with named_errors(job), job.source.open("wb") as file:
        async for chunk in request.stream():
            received += len(chunk)
            if received > max_bytes:
                raise too_large
            file.write(chunk)


async def _viridis(request: Request) -> Response:
    """Return the colours of the weights, from 0 to 1."""
    file = io.BytesIO()
    Image.frombytes("RGB", (256, 1), VIRIDIS).save(file, "PNG")
    return Response(file.getvalue(), media_type="image/png")


async def _as_json(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestError):
        return JSONResponse({"error": str(error)}, error.status)
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)
