"""Addresses of repositories and files on the hub: ``hf://user/name``, ``hf://user/name@revision/file``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from d2csr.errors import CheckpointError

# A Path has one slash less: Path("hf://user/name") is hf:/user/name.
_PREFIX = re.compile(r"hf:/{1,2}(?=[^/])")
_ADDRESS = re.compile(
    r"(?:models/)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/(?:pr|convert|heads|tags)/[^/]+|[^/]+))?(?:/(?P<file>.+))?"
)


@dataclass(frozen=True)
class HubAddress:
    """A repository on the hub.

    Attributes:
        repo: ``user/name``.
        revision: a branch, tag or commit; None for the main branch.
        file: a file of the repository, by its path there; None if none is named.
    """

    repo: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{self.repo}{revision}{f'/{self.file}' if self.file else ''}"

    @classmethod
    def parse(cls, address: str | Path) -> HubAddress:
        """Read an address as huggingface_hub's file system writes it; a ``/`` in a revision may be ``%2F``.

        Raises:
            CheckpointError: it has another form.
        """
        text = str(address)
        match = _ADDRESS.fullmatch(_PREFIX.sub("", text, count=1))
        if match is None or not is_address(text) or ".." in (match["file"] or "").split("/"):
            raise CheckpointError(
                f"{text}: not an address of the hub. Write hf://user/name, hf://user/name/file or "
                "hf://user/name@revision/file."
            )
        revision = match["revision"]
        return cls(match["repo"], unquote(revision) if revision else None, match["file"])


def is_address(path: str | Path) -> bool:
    """Return whether a path is an address on the hub."""
    return _PREFIX.match(str(path)) is not None
