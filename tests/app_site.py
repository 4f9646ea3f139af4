"""A client of the page's server, and images to send."""

from __future__ import annotations

import http.client
import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from d2csr.app.processing import NamedModel

PATIENCE = 120  # seconds, on a busy machine
MEMORY = "2GB"  # the same strips, hence the same rounding, in every call


@dataclass
class Site:
    """A running server."""

    port: int
    folder: Path  # of uploads and results
    go: threading.Event  # images are computed only while it is set
    models: list[NamedModel]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body; ``content_type=…`` is the header Content-Type."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named, encode_chunked="transfer-encoding" in named)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, content

    def send(self, body: Any, name: str = "a.png", checkpoint: str = "0", leaves: int = 0, **headers: str) -> Any:
        """Upload an image, and return status and JSON."""
        query = f"name={quote(name)}&checkpoint={checkpoint}&leaves={leaves}"
        headers = {"content_type": "application/octet-stream", **headers}
        status, _, content = self.request("POST", f"/api/jobs?{query}", body, **headers)
        return status, json.loads(content)

    def state(self, job: dict[str, Any]) -> Any:
        """Return the state of a job."""
        return json.loads(self.request("GET", f"/api/jobs/{job['id']}")[2])

    def result(self, job: dict[str, Any]) -> Any:
        """Wait until a job has ended, and return its state."""
        wait_until(lambda: self.state(job)["state"] in ("done", "failed"))
        return self.state(job)


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def png(width: int = 12, height: int = 8, seed: int = 0) -> bytes:
    """Return a PNG file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
