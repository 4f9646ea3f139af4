"""API pages: every module of the package, from its docstrings, without a list that a new module has to be added to.

A line ``<!-- modules: data demo -->`` stands for the packages and modules with these names in d2csr, and
``<!-- all other modules -->`` for those that no page names.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PACKAGE = "d2csr"
NAMED = re.compile(r"^<!-- modules: ([\w. ]+) -->$", re.MULTILINE)
OTHERS = "<!-- all other modules -->"
LEFT_OUT = ("commands", "renamed")  # the reference of the configuration describes the commands


def modules_of(name: str) -> list[str]:
    """Return a module of the package and all modules below it, such as ``data``, ``data.batch``, ``data.cache``."""
    module = importlib.import_module(f"{PACKAGE}.{name}")
    below = pkgutil.iter_modules(getattr(module, "__path__", []))
    return [name, *(found for info in below for found in modules_of(f"{name}.{info.name}"))]


def described(name: str) -> str:
    """Return the directives of a module: names that its package exports are described there, under the shorter name."""
    module = importlib.import_module(f"{PACKAGE}.{name}")
    parent = importlib.import_module(module.__name__.rpartition(".")[0])
    public = [key for key, value in vars(module).items() if not key.startswith("_") and is_own(value, module)]
    elsewhere = [key for key in public if key in getattr(parent, "__all__", ())]
    exports = getattr(module, "__all__", []) if hasattr(module, "__path__") else []
    if public and not set(public) - set(elsewhere):
        return ""
    at_top = sorted(set(exports) & set(importlib.import_module(PACKAGE).__all__) - {"D2CSR"})
    options = [":imported-members:"] if exports else []
    if elsewhere or at_top:
        options.append(f":exclude-members: {', '.join(elsewhere + at_top)}")
    if is_own(vars(parent).get(name.rpartition(".")[2]), module):  # a function with the name of its module
        rest = [key for key in public if key not in elsewhere]
        members = "".join(
            f".. auto{'class' if inspect.isclass(vars(module)[key]) else 'function'}:: {module.__name__}.{key}\n\n"
            for key in rest
        )
        return f"## `{module.__name__}`\n\n```{{eval-rst}}\n{members}```\n\n"
    lines = [f".. automodule:: {module.__name__}", *(f"   {option}" for option in options)]
    return f"## `{module.__name__}`\n\n```{{eval-rst}}\n" + "\n".join(lines) + "\n```\n\n"


def is_own(value: Any, module: Any) -> bool:
    """Return whether a class or function is defined in a module."""
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the directives into the page."""
    source[0] = NAMED.sub(lambda match: "".join(map(directives, match[1].split())), source[0])
    if OTHERS in source[0]:
        source[0] = source[0].replace(OTHERS, "".join(map(directives, others(Path(app.srcdir) / "api"))))


def directives(name: str) -> str:
    """Return the directives of a module and of all modules below it."""
    return "".join(map(described, modules_of(name)))


def others(folder: Path) -> list[str]:
    """Return the packages and modules of d2csr that no page in a folder names."""
    named = {
        name for page in folder.glob("*.md") for match in NAMED.finditer(page.read_text()) for name in match[1].split()
    }
    found = pkgutil.iter_modules(importlib.import_module(PACKAGE).__path__)
    return [info.name for info in found if info.name not in {*named, *LEFT_OUT}]


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the reader."""
    app.connect("source-read", read_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
