"""A stand-in of the hub's HTTP interface on loopback: the paths that huggingface_hub uses to download and to commit."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    files: dict[str, bytes] = field(default_factory=dict)
    revisions: tuple[str, ...] = ("main", "v1", COMMIT)
    gated: bool = False


class FakeHub(ThreadingHTTPServer):
    """Serves ``repositories`` at ``endpoint`` until ``close``; ``requests`` are those that came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}  # by SHA-256, before they are committed
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.messages: list[str] = []
        self.stated_size: int | None = None  # in place of the sizes of files
        self.failure: int | None = None  # status of every answer
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.requests.append(f"{self.command} {path}")
        if not path.startswith("/large/"):  # a signed address, without a token
            hub.tokens.add(self.headers.get("authorization"))
        if hub.failure:
            return self._answer(hub.failure, {"error": "out of order"})
        routes = (
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", lambda body: self._answer(200, {"errors": [], "warnings": []})),
            (r"/api/models/([^/]+/[^/]+)/preupload/(.+)", self._preupload),
            (r"/api/models/([^/]+/[^/]+)/commit/(.+)", self._commit),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/large/(\w+)", self._large),
            (r"/([^/]+/[^/]+)/resolve/((?:refs/pr/)?[^/]+)/(.+)", self._resolve),
        )
        for pattern, route in routes:
            if match := re.fullmatch(pattern, path):
                return route(body, *match.groups())
        return self._answer(404, {"error": f"the stand-in does not know {path}"})

    def _answer(self, status: int, content: Any = None, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, {"error": code}, X_Error_Code=code)

    def _resolve(self, body: bytes, repo: str, revision: str, file: str) -> None:
        repository = self.server.repositories.get(repo)
        if repository is None:
            return self._refuse(401, "RepoNotFound")  # as the hub does without a token
        if repository.gated:
            return self._refuse(403, "GatedRepo")
        if revision not in repository.revisions:
            return self._refuse(404, "RevisionNotFound")
        if file not in repository.files:
            return self._answer(404, {}, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        content = repository.files[file]
        size = self.server.stated_size or len(content)
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return self._answer(200, content, X_Repo_Commit=COMMIT, ETag=etag, X_Linked_Size=str(size))

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        status = 409 if repo in self.server.repositories else 200
        self.server.repositories.setdefault(repo, Repository())
        self._answer(status, {"url": f"{self.server.endpoint}/{repo}"})

    def _preupload(self, body: bytes, repo: str, revision: str) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._answer(200, {"files": files})

    def _batch(self, body: bytes, repo: str) -> None:
        objects = [
            {**item, "actions": {"upload": {"href": f"{self.server.endpoint}/large/{item['oid']}"}}}
            for item in json.loads(body)["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _large(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.large[oid] = body
        self._answer(200, {})

    def _commit(self, body: bytes, repo: str, revision: str) -> None:
        files = self.server.repositories[repo].files
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.server.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        self._answer(200, {"commitUrl": f"{self.server.endpoint}/{repo}/commit/{COMMIT}", "commitOid": COMMIT})
