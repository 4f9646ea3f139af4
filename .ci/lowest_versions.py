"""Constraints for pip with the lowest version of each package that pyproject.toml allows."""

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in (
    *project["dependencies"],
    *(r for extra in project["optional-dependencies"].values() for r in extra),
):
    if match := re.match(r"([\w-]+)>=([\w.]+)", requirement):
        print("==".join(match.groups()))
