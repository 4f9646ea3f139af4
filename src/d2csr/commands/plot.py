"""``d2csr-plot``: training curves of one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from d2csr.commands.app import command
from d2csr.commands.compared_methods import several_paths


@command("plot", lists=("run",), paths=("run", "output"))
def main(cfg: DictConfig) -> None:
    """Read the logs, draw the curves, and print what was written."""
    from d2csr.checks import flag
    from d2csr.errors import ConfigError, printable
    from d2csr.plotting import draw_curves, find_logs, read_run_log, require_matplotlib, shortest_names, write_figure

    require_matplotlib()
    runs = several_paths("run", cfg.run)
    if not runs:
        raise ConfigError("run=… is missing: a run folder, or several in brackets; see --help.")
    logs = [log for run in runs for log in find_logs(run)]
    outputs = _outputs(cfg.output, runs, logs, overwrite=flag("overwrite", cfg.overwrite))
    figure = draw_curves([read_run_log(log, name) for log, name in zip(logs, shortest_names(logs), strict=True)])
    for path in outputs:
        write_figure(figure, path)
        print(printable(str(path)))


def _outputs(output: Any, runs: list[Path], logs: list[Path], overwrite: bool) -> list[Path]:
    """Return the files to write: curves.png and curves.svg of a run are written again, other files are kept.

    Raises:
        ConfigError: a file exists, or has a suffix of another format.
    """
    from d2csr.checks import one_of
    from d2csr.errors import ConfigError
    from d2csr.files import user_path
    from d2csr.plotting import FORMATS

    if output is None and len(logs) == 1 and runs[0].is_dir():
        return [user_path(runs[0]) / f"curves{suffix}" for suffix in FORMATS[:2]]
    path = user_path("." if output is None else str(output))
    if path.is_dir() or not path.suffix:
        paths = [path / f"curves{suffix}" for suffix in FORMATS[:2]]
    else:
        one_of("output", path.suffix.lower(), FORMATS)
        paths = [path]
    existing = next((one for one in paths if one.exists()), None)
    if existing is not None and not overwrite:
        raise ConfigError(f"output: {existing} exists; choose another name by output=…, or add overwrite=true.")
    return paths


if __name__ == "__main__":
    main()
