"""Base of the commands: configuration folder, plugins and readable errors.

Nothing here imports torch, which would delay ``--help`` and the message for a mistyped option.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import hydra
from hydra.errors import HydraException, InstantiationException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import d2csr
from d2csr.checks import flag, keys_below, require_packages
from d2csr.commands import sweep
from d2csr.commands.arguments import hydra_arguments, one_message, override_errors, restore_full_error
from d2csr.commands.early_checks import check_early
from d2csr.commands.run_folder import remember_missing, removed_if_failed
from d2csr.commands.targets import source_key
from d2csr.errors import ConfigError, Stopped, UserError, is_disk_full, printable
from d2csr.log_file import log_to_file, logged_warnings, quieten
from d2csr.plugins import import_plugins
from d2csr.renamed import BY_COMMAND

if TYPE_CHECKING:
    import pytorch_lightning as pl

_Object = TypeVar("_Object")


def config_dir() -> str:
    """Return the folder of the configuration: inside the package in a wheel, at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "conf"
    return str(shipped if shipped.is_dir() else package.parents[1] / "conf")


def command(
    config_name: str, *, lists: Collection[str] = (), paths: Collection[str] = (), open_nodes: Collection[str] = ()
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Turn a function of a configuration into a console script: it imports plugins and prints readable errors.

    ``config_name`` is the primary configuration, ``train`` for ``conf/train.yaml``. The others are arguments of
    :func:`d2csr.commands.arguments.hydra_arguments`.
    """
    renamed = BY_COMMAND.get(config_name)
    rewrite = partial(hydra_arguments, lists={*lists, "plugins"}, paths=paths, renamed=renamed, open_nodes=open_nodes)

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], None]:
        def run(cfg: DictConfig) -> Any:
            with removed_if_failed(), logged_warnings(), readable_errors(cfg):
                check_early(cfg, Path(config_dir(), f"{config_name}.yaml"))
                if cfg.get("plugins"):
                    import_plugins(texts(cfg, "plugins", "a module"))
                return function(cfg)

        @wraps(function)
        def guarded(cfg: DictConfig) -> Any:
            restore_full_error()
            quieten()
            resumes = cfg.get("resume") is not None
            return sweep.run_job(lambda: run(cfg), lambda error: explain(error, cfg), resumes=resumes)

        hydra_main = hydra.main(version_base="1.3", config_path=config_dir(), config_name=config_name)(guarded)

        @wraps(function)
        def main() -> None:
            # In place: Lightning starts the other processes of DDP with these arguments again.
            sys.argv[1:] = rewrite(sys.argv[1:])
            if "--version" in sys.argv:
                print(f"d2csr {d2csr.__version__}")
                return
            quieten()
            try:
                with readable_errors(), override_errors(config_dir(), config_name, sys.argv[1:]):
                    hydra_main()
            finally:
                failed = sweep.report()
            if failed:
                sys.exit(1)

        return main

    return decorate


@contextmanager
def readable_errors(cfg: DictConfig | None = None) -> Iterator[None]:
    """End the program with one message for a user's mistake; a defect of the program keeps its traceback."""
    try:
        yield
    except KeyboardInterrupt:
        _exit("interrupted", 130)  # as a shell after Ctrl-C
    except Stopped as stop:
        from d2csr.distributed import is_rank_zero

        if not is_rank_zero():
            sys.exit(0)  # another status might make the launcher kill rank 0
        print(stop, file=sys.stderr)
        log_to_file(str(stop))
        sys.exit(stop.status)
    except Exception as error:
        message = explain(error, cfg)
        if message is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            log_to_file(traceback.format_exc(), logging.ERROR)
            raise
        if "torch" not in sys.modules:  # an early check
            _exit(message, 1)
        from d2csr.distributed import another_rank_reports, exit_status

        if not another_rank_reports(error):
            print(f"error: {printable(message)}", file=sys.stderr, flush=True)
            log_to_file(printable(message), logging.ERROR)
        sys.exit(exit_status())


def explain(error: BaseException, cfg: DictConfig | None = None) -> str | None:
    """Return the message of an error that the user can fix, or ``None`` for a defect of this package."""
    if isinstance(error, UserError):
        # The message comes last in an error from a DataLoader's worker, after its traceback.
        return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
    if isinstance(error, InstantiationException):
        key, cause = str(error).rpartition("full_key: ")[2].strip(), error.__cause__
        if isinstance(cause, ConfigError):
            return _with_key(key, str(cause), cfg)
        if type(cause).__name__ == "MisconfigurationException":  # of Lightning, which knows no keys
            return f"{key}: {cause}"
        return (cause and explain(cause)) or (f"{key}: {cause}" if cause else str(error))
    if isinstance(error, HydraException | OmegaConfBaseException):
        return one_message(str(error))
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if is_disk_full(error):
        return "no space left on the disk. Free some, or name another folder by hydra.run.dir=…."
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from d2csr.distributed import LOST, has_lost_connection

    if isinstance(error, MisconfigurationException) or str(error).startswith("Early stopping conditioned on metric"):
        return str(error)
    return LOST if has_lost_connection() else None


def _with_key(key: str, message: str, cfg: DictConfig | None) -> str:
    """Put the key of a node in front of the argument that a message begins with, ``features: must be …``."""
    match = re.match(r"(\w+(?:\.\w+)*): ", message)
    if match is None or match[1].startswith(f"{key}."):
        return message
    full = f"{key}.{match[1]}"
    return f"{source_key(cfg, full) if cfg is not None else full}: {message[match.end() :]}"


class RunFolder(Callback):
    """Makes the run folder before Hydra does, and checks the launcher, with a message if that fails."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check what needs no import, and make ``hydra.run.dir``."""
        restore_full_error()
        with removed_if_failed(), readable_errors(config):
            remember_missing(Path(config.hydra.run.dir))
            check_early(config, Path(config_dir(), f"{config.hydra.job.config_name}.yaml"))
            _make_folder(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the launcher and make ``hydra.sweep.dir``."""
        restore_full_error()
        with readable_errors(config):
            _check_launcher(config)
            _make_folder(Path(config.hydra.sweep.dir))
        sweep.begin(Path(config.hydra.sweep.dir))


def _check_launcher(config: DictConfig) -> None:
    target, number = config.hydra.launcher._target_, config.trainer.devices
    if "submitit" in target:
        require_packages("hydra/launcher: submitit", ["hydra_plugins.hydra_submitit_launcher"], "slurm")
    if target.endswith("SlurmLauncher") and (not isinstance(number, int) or number < 1):
        raise ConfigError(f"trainer.devices={number}: a job has to ask for a number of devices; set trainer.devices=4.")
    if target.endswith("SlurmLauncher") and shutil.which("srun") is None:
        raise ConfigError(
            "hydra/launcher: no srun here, so no SLURM; submit from a login node, or use hydra/launcher=submitit_local."
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:  # on a full disk Hydra would end with a traceback
            probe.write(bytes(2**16))  # Hydra writes about 20,000
    except OSError as error:
        advice = "Name another by hydra.run.dir=… (of a sweep hydra.sweep.dir=…)."
        raise ConfigError(f"{folder}: cannot be written to ({error.strerror}). {advice}") from None


def _exit(message: str, status: int) -> None:
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(status)


def plain(cfg: Any) -> Any:
    """Return a node of the configuration as plain dicts, lists and values, interpolations resolved."""
    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg


def node_object(cfg: DictConfig, key: str, kind: Callable[..., _Object]) -> _Object:
    """Return an object that a node holds the arguments of."""
    with keys_below(key):
        return kind(**plain(cfg[key]))


def inference_trainer(settings: dict[str, Any], **arguments: Any) -> pl.Trainer:
    """Return Lightning's Trainer of a command that does not train, by the settings of ``trainer`` and arguments."""
    from hydra.utils import instantiate

    from d2csr.devices import inference_strategy

    with keys_below("trainer"):
        strategy = inference_strategy(settings)
    trainer = instantiate(settings, logger=False, strategy=strategy, **arguments, _convert_="all")
    require_trainer(trainer)
    return trainer


def require_trainer(trainer: Any) -> None:
    """Raise a ConfigError unless the object is a Trainer of Lightning."""
    from pytorch_lightning import Trainer

    if not isinstance(trainer, Trainer):
        raise ConfigError(f"trainer._target_: makes no Trainer of Lightning, but a {type(trainer).__name__}.")


def texts(cfg: DictConfig, key: str, what: str = "a path") -> list[str]:
    """Return the texts of a key that holds none, one, or a list of them; raise a ConfigError for anything else."""
    value = plain(cfg[key])
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(one, str | int) and not isinstance(one, bool) and str(one) for one in values):
        raise ConfigError(f"{key}: must be {what} or a list of {what.partition(' ')[2]}s, got {values!r}.")
    return [str(one) for one in values]


def require_new(paths: Sequence[Path], overwrite: Any) -> None:
    """Refuse to replace files or folders without ``overwrite=true``."""
    taken = [path for path in paths if path.exists()]
    if not flag("overwrite", overwrite) and taken:
        raise ConfigError(f"output: {taken[0]} exists; choose another name, or add overwrite=true.")
