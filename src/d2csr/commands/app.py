"""What the commands share: where their configuration lies, and how a user's mistake ends.

Nothing here imports torch: ``--help`` and a mistyped option should answer at once.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException, InstantiationException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from d2csr.errors import UserError

INTERRUPTED = 130  # as a shell reports a command that Ctrl-C ended


def config_dir() -> str:
    """Return the folder of the configuration: inside the package in a wheel, at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "conf"
    return str(shipped if shipped.is_dir() else package.parents[1] / "conf")


def command(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Turn a function of a configuration into a console script, with errors that a user can read.

    Args:
        config_name: the primary configuration, ``train`` for ``conf/train.yaml``.
    """

    def decorate(function: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(function)
        def guarded(cfg: DictConfig) -> None:
            _quieten()
            with readable_errors():
                missing = sorted(OmegaConf.missing_keys(cfg))
                if missing:
                    raise UserError(f"{' '.join(f'{key}=…' for key in missing)} is missing; see --help.")
                function(cfg)

        return hydra.main(version_base="1.3", config_path=config_dir(), config_name=config_name)(guarded)

    return decorate


@contextmanager
def readable_errors() -> Iterator[None]:
    """End the program with one message and a status where a user's mistake is met; a defect keeps its traceback.

    ``HYDRA_FULL_ERROR=1`` shows the traceback of every error.
    """
    try:
        yield
    except KeyboardInterrupt:
        _exit("interrupted", INTERRUPTED)
    except Exception as error:
        message = explain(error)
        if message is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        _exit(message, 1)


def explain(error: BaseException) -> str | None:
    """Return what to tell the user about an error, or ``None`` if it is a defect of this package."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    if isinstance(error, UserError):
        # A DataLoader's worker hands an error on as a text that holds its traceback; the message is its end.
        return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
    if isinstance(error, InstantiationException):
        # Hydra names the Python object that it called; the user knows the part of the configuration, its last line.
        part = str(error).rpartition("full_key: ")[2].strip()
        cause = error.__cause__
        return (cause and explain(cause)) or (f"{part}: {cause}" if cause else str(error))
    if isinstance(error, MisconfigurationException | HydraException | OmegaConfBaseException):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


class RunFolder(Callback):
    """Makes the run folder before Hydra does, so that one which cannot be made is a message too."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make ``hydra.run.dir``."""
        folder = Path(config.hydra.run.dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            _exit(f"{folder}: cannot be written to ({error.strerror}). Name another folder by hydra.run.dir=….", 1)


def _exit(message: str, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _quieten() -> None:
    """Silence what Lightning says to developers; what a user can act on still comes through."""
    for name in ("utilities.rank_zero", "trainer.connectors.checkpoint_connector", "accelerators.cuda"):
        logging.getLogger(f"pytorch_lightning.{name}").setLevel(logging.WARNING)
    for text in (
        "isinstance.treespec",
        "does not have many workers",
        "Checkpoint directory",
        "dirpath has changed",
        "Experiment logs directory",
        "smaller than the logging interval",
    ):
        warnings.filterwarnings("ignore", message=f".*{text}.*")


def plain(cfg: Any) -> Any:
    """Return a node of the configuration as plain dicts, lists and values, interpolations resolved."""
    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
