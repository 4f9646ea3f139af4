"""Addresses on the hub, downloads from it and uploads to it, by the package huggingface_hub.

An address is ``hf://user/name`` or ``hf://user/name@revision/file``. huggingface_hub takes its token, mirror and cache
from the environment (``HF_TOKEN``, ``HF_ENDPOINT``, ``HF_HOME``), and with ``HF_HUB_OFFLINE=1`` uses the cache alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any
from urllib.parse import unquote

from d2csr.checks import require_packages
from d2csr.errors import CheckpointError, one_line
from d2csr.log_file import quiet_loggers

# A Path has one slash less: Path("hf://user/name") is hf:/user/name.
_PREFIX = re.compile(r"hf:/{1,2}(?=[^/])")
_ADDRESS = re.compile(
    r"(?:models/)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/(?:pr|convert|heads|tags)/[^/]+|[^/]+))?(?:/(?P<file>.+))?"
)


@dataclass(frozen=True)
class HubAddress:
    """A repository on the hub."""

    repo: str  # ``user/name``
    revision: str | None = None  # a branch, tag or commit; None for the main branch
    file: str | None = None  # a file of the repository, by its path there; None if none is named

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{self.repo}{revision}{f'/{self.file}' if self.file else ''}"

    @classmethod
    def parse(cls, address: str | Path) -> HubAddress:
        """Read an address, in whose revision a ``/`` may be ``%2F``; raise a CheckpointError for any other form."""
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


WEIGHTS, CONFIG = "model.safetensors", "config.json"
MAX_CONFIG = 64 * 2**10  # bytes; that of the paper's network has 200
MAX_WEIGHTS = 2 * 2**30  # bytes; those of the paper's network have 23 MB

_LOG_IN = "log in by: hf auth login"


def download(address: HubAddress, **options: Any) -> Path:
    """Download the weights that an address names, and the ``config.json`` beside them, into the cache.

    Args:
        address: with a file, or without for ``model.safetensors``.
        **options: of ``huggingface_hub.hf_hub_download``: ``token``, ``cache_dir``, ``force_download``,
            ``local_files_only``.

    Returns:
        The file in the cache.

    Raises:
        CheckpointError: the repository, revision or file does not exist, needs a permission or is too large, or the hub
            cannot be reached and the file is not in the cache.
        ConfigError: huggingface_hub is missing.
    """
    file = address.file or WEIGHTS
    path = _fetch(address, file, MAX_WEIGHTS, options)
    if path.suffix == ".safetensors":
        # Files of this package describe their network themselves; those of PyTorchModelHubMixin do not.
        try:
            _fetch(address, str(PurePosixPath(file).with_name(CONFIG)), MAX_CONFIG, options)
        except CheckpointError as error:
            if not isinstance(error.__cause__, _package(address).errors.EntryNotFoundError):
                raise
    return path


def upload_folder(
    folder: Path,
    repo: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    kept: Sequence[str] = (),
    **options: Any,
) -> str:
    """Make a repository on the hub, unless it exists, upload a folder in one commit, and return the commit's address.

    ``private`` is None for the default of the account, ``token`` for that of the environment or of ``hf auth login``.
    Files in ``kept`` are not uploaded if the repository has them. ``options`` are those of
    ``huggingface_hub.HfApi.upload_folder``: ``commit_message``, ``revision``, ``create_pr``, …

    Raises:
        CheckpointError: the hub refuses it, or cannot be reached.
        ConfigError: huggingface_hub is missing.
    """
    hub = _package(f"hf://{repo}")
    with _explained(HubAddress(repo), None):
        api = hub.HfApi(token=token)
        repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
        given = options.pop("ignore_patterns", None) or []
        ignored = [given] if isinstance(given, str) else list(given)
        ignored += [file for file in kept if api.file_exists(repo, file, revision=options.get("revision"))]
        return str(api.upload_folder(repo_id=repo, folder_path=folder, ignore_patterns=ignored or None, **options))


def _fetch(address: HubAddress, file: str, limit: int, options: dict[str, Any]) -> Path:
    hub = _package(address)
    named = {"repo_id": address.repo, "filename": file, "revision": address.revision, **options}
    with _explained(address, file):
        known = hub.hf_hub_download(**named, dry_run=True)  # asks for the size, without the file
        _check_size(address, file, known.file_size, limit)
        path = Path(hub.hf_hub_download(**named))
    _check_size(address, file, path.stat().st_size, limit)
    return path


def _check_size(address: HubAddress, file: str, size: int | None, limit: int) -> None:
    if size is None or size > limit:
        given = "an unknown number of" if size is None else f"{size:,}"
        raise CheckpointError(f"{address}: {file} has {given} bytes; the limit is {limit:,}.")


def _package(address: object) -> ModuleType:
    require_packages(f"{address}:", ["huggingface_hub"], "hub")
    import huggingface_hub
    import huggingface_hub.errors

    return huggingface_hub


@contextmanager
def _explained(address: HubAddress, file: str | None) -> Iterator[None]:
    """Turn the errors of huggingface_hub into a CheckpointError of one line; defects keep their type."""
    try:
        # Of each request and of each retry; progress bars stay.
        with quiet_loggers("huggingface_hub", "httpx", "httpx2"):
            yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = _reason(error, address, file)
        if reason is None:
            raise
        raise CheckpointError(f"{address}: {reason}") from error


def _reason(error: Exception, address: HubAddress, file: str | None) -> str | None:
    from huggingface_hub import constants, errors

    if type(error) is ValueError and isinstance(error.__cause__, Exception):  # with force_download
        return _reason(error.__cause__, address, file)
    if isinstance(error, errors.GatedRepoError):
        return f"a gated repository. Ask for access at {constants.ENDPOINT}/{address.repo}, then {_LOG_IN}."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such repository, or a private one. Check the name, or {_LOG_IN}."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository has no revision {address.revision or 'main'}."
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled) or _is_connection(error):
        cached = f", and {file} is not in its cache ({constants.HF_HUB_CACHE})" if file else ""
        return f"{constants.ENDPOINT} cannot be reached{cached}. Connect to the network, or name a local file."
    if isinstance(error, errors.EntryNotFoundError):
        return f"the repository has no file {file}. Name one of its files: hf://{address.repo}/FILE."
    if isinstance(error, errors.HFValidationError):
        return f"not the name of a repository ({one_line(error).rstrip('.')})."
    if isinstance(error, errors.LocalTokenNotFoundError):
        return f"the hub needs a token: {_LOG_IN}."
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        advice = f" Check your token, or {_LOG_IN}." if status in (401, 403) else ""
        answer = one_line(error.server_message or error.response.reason_phrase).rstrip(".")
        return f"the hub answered {status} ({answer}).{advice}"
    return f"{one_line(error).rstrip('.')}." if isinstance(error, OSError | ValueError) else None


def _is_connection(error: BaseException) -> bool:
    """Return whether the network failed, by the name of the base class, which is httpx's or httpx2's."""
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)
