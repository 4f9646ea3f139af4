"""What the commands share: where their configuration lies, and how a user's mistake ends.

Nothing here imports torch: ``--help`` and a mistyped option should answer at once.
"""

from __future__ import annotations

import errno
import functools
import importlib.util
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import hydra
from hydra.errors import HydraException, InstantiationException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from d2csr.commands import run_name
from d2csr.errors import ConfigError, Stopped, UserError, printable

# Here, since the jobs that a launcher submits come by without the command line.
run_name.register()
# Our submitit_slurm is to be checked by the plugin's schema of this name; what Hydra says of that is not for users.
warnings.filterwarnings("ignore", message="(?s).*is validated against ConfigStore schema with the same name")

INTERRUPTED = 130  # as a shell reports a command that Ctrl-C ended


def config_dir() -> str:
    """Return the folder of the configuration: inside the package in a wheel, at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "conf"
    return str(shipped if shipped.is_dir() else package.parents[1] / "conf")


def command(
    config_name: str,
    *,
    lists: Collection[str] = (),
    paths: Collection[str] = (),
    aliases: Mapping[str, str] | None = None,
) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Turn a function of a configuration into a console script, with errors that a user can read.

    Args:
        config_name: the primary configuration, ``train`` for ``conf/train.yaml``.
        lists: keys whose values may be written as on any other command line; see :func:`hydra_arguments`.
        paths: likewise.
        aliases: short keys and the keys that they stand for.
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

        hydra_main = hydra.main(version_base="1.3", config_path=config_dir(), config_name=config_name)(guarded)

        @functools.wraps(function)
        def main() -> None:
            # In place: Lightning starts the other processes of DDP with these arguments again.
            sys.argv[1:] = hydra_arguments(sys.argv[1:], lists=lists, paths=paths, aliases=aliases or {})
            hydra_main()

        return main

    return decorate


def hydra_arguments(
    arguments: Sequence[str],
    *,
    lists: Collection[str] = (),
    paths: Collection[str] = (),
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Turn arguments as people write them into such as Hydra's grammar takes.

    To Hydra ``save=sr,leaves`` is a sweep over two runs, which it refuses, and ``input=photo (1).jpg`` no sentence.
    With ``--multirun`` commas are meant as a sweep, and all arguments stay as they are; a launcher implies it.

    Args:
        arguments: of the command line, without the command.
        lists: keys whose value is a list: commas get their brackets.
        paths: keys whose value is a path: it is quoted where it holds what has a meaning in Hydra's grammar.
        aliases: short keys and the keys that they stand for.
    """
    parts = (argument.partition("=") for argument in arguments)
    arguments = [aliases.get(key, key) + equals + value for key, equals, value in parts]
    shows = {"--cfg", "-c", "--info", "-i", "--help"} & set(arguments)
    if not shows and any(re.fullmatch(r"hydra/launcher=(?!basic$).+", argument) for argument in arguments):
        arguments = list(dict.fromkeys([*arguments, "--multirun"]))  # else Hydra would not ask the launcher, silently
    if {"-m", "--multirun"} & set(arguments):
        return arguments
    return [_hydra_argument(argument, lists, paths) for argument in arguments]


def _hydra_argument(argument: str, lists: Collection[str], paths: Collection[str]) -> str:
    key, equals, value = argument.partition("=")
    if not equals:
        return argument
    if key in lists and "," in value and not value.startswith(("[", '"', "'")):
        return f"{key}=[{value}]"
    if key in paths and not re.fullmatch(r"""["'].*["']|[A-Za-z0-9_/.+:*?-]*""", value):
        quoted = re.sub(r'(\\*)(?="|$)', r"\1\1", value).replace('"', '\\"')  # a backslash counts before quotes only
        return f'{key}="{quoted}"'
    return argument


@contextmanager
def readable_errors() -> Iterator[None]:
    """End the program with one message and a status where a user's mistake is met; a defect keeps its traceback.

    ``HYDRA_FULL_ERROR=1`` shows the traceback of every error.
    """
    try:
        yield
    except KeyboardInterrupt:
        _exit("interrupted", INTERRUPTED)
    except Stopped as stop:
        _stop(stop)
    except Exception as error:
        message = explain(error)
        if message is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        _exit_among_others(error, message)


def _exit_among_others(error: BaseException, message: str) -> None:
    """End with a message, unless another process of this job has the same one or a better one."""
    from d2csr.distributed import another_rank_reports, exit_status

    if not another_rank_reports(error):
        print(f"error: {printable(message)}", file=sys.stderr, flush=True)
    sys.exit(exit_status(error))


def explain(error: BaseException) -> str | None:
    """Return what to tell the user about an error, or ``None`` if it is a defect of this package."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from d2csr.distributed import LOST, is_lost_connection

    if isinstance(error, UserError):
        # A DataLoader's worker hands an error on as a text that holds its traceback; the message is its end.
        return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
    if isinstance(error, InstantiationException):
        # Hydra names the Python object that it called; the user knows the part of the configuration, its last line.
        part = str(error).rpartition("full_key: ")[2].strip()
        cause = error.__cause__
        if isinstance(cause, ConfigError) and part in ("trainer", "data"):
            return f"{part}.{cause}"
        return (cause and explain(cause)) or (f"{part}: {cause}" if cause else str(error))
    if isinstance(error, MisconfigurationException | HydraException | OmegaConfBaseException):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}. Free some, or name another folder by hydra.run.dir=…."
    return LOST if is_lost_connection(error) else None


class RunFolder(Callback):
    """Makes the run folder before Hydra does, so that one which cannot be made is a message too.

    Of a launcher it checks whether it can be asked.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make ``hydra.run.dir``."""
        self._make(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make ``hydra.sweep.dir``, and check the launcher."""
        launcher = config.hydra.launcher
        if "submitit" in launcher._target_:
            if not importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher"):
                _exit("hydra/launcher: submitit is not installed; pip install 'd2csr[slurm]' brings it.", 1)
            try:
                tasks = launcher.tasks_per_node
            except OmegaConfBaseException:  # the plugin knows that it is no number
                tasks = config.trainer.devices
            if not isinstance(tasks, int) or tasks < 1:
                _exit(f"trainer.devices={tasks}: a job has to ask for a number of devices; set trainer.devices=4.", 1)
        self._make(Path(config.hydra.sweep.dir))

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            _exit(
                f"{folder}: cannot be written to ({error.strerror}). Name another by hydra.run.dir=… (of a sweep "
                "hydra.sweep.dir=…).",
                1,
            )


def _stop(stop: Stopped) -> None:
    """End as a process does that a signal ended, and say once what was saved.

    All but the first process end with 0: whoever started them, Lightning, SLURM or submitit, might otherwise kill the
    first one, which has the last things to do.
    """
    from d2csr.distributed import is_rank_zero

    if not is_rank_zero():
        sys.exit(0)
    print(stop, file=sys.stderr)
    sys.exit(stop.status)


def _exit(message: str, status: int) -> None:
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(status)


def _quieten() -> None:
    """Silence what Lightning says to developers; what a user can act on still comes through."""
    for name in (
        "lightning_fabric.utilities.distributed",
        "pytorch_lightning.utilities.rank_zero",
        "pytorch_lightning.trainer.connectors.checkpoint_connector",
        "pytorch_lightning.accelerators.cuda",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        "isinstance.treespec",
        "does not have many workers",
        "Checkpoint directory",
        "dirpath has changed",
        "You.re resuming from a checkpoint that ended before the epoch ended",
        "Experiment logs directory",
        "smaller than the logging interval",
        "predict returned None",
    ):
        warnings.filterwarnings("ignore", message=f".*{text}.*")


def plain(cfg: Any) -> Any:
    """Return a node of the configuration as plain dicts, lists and values, interpolations resolved."""
    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
