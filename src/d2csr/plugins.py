"""Import of the user's modules that register bodies and data set layouts."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from d2csr.errors import ConfigError


def import_plugins(modules: Sequence[str]) -> None:
    """Import modules by name, such as ``my_package.bodies``, from the working folder or from ``PYTHONPATH``.

    A module registers its definitions when it is imported, for example with :func:`d2csr.models.register_body`. Names
    come from the user alone, never from a checkpoint.

    Raises:
        ConfigError: a module is not found, or its import fails.
    """
    if isinstance(modules, str) or not all(isinstance(name, str) for name in modules):
        raise ConfigError(f"plugins: must be a list of module names, such as [my_bodies], got {modules!r}.")
    here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    if modules and here not in sys.path:
        sys.path.insert(0, here)
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
                raise ConfigError(f"plugins: {name} needs the module {error.name}, which is not installed.") from error
            raise ConfigError(
                f"plugins: no module {name!r} in {here} or on PYTHONPATH. Name a Python file there without its .py."
            ) from None
        except ConfigError:
            raise
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            raise ConfigError(
                f"plugins: the import of {name} failed: {at.filename}:{at.lineno}: {type(error).__name__}: {error}"
            ) from error
