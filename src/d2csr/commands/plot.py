"""``d2csr-plot``: training curves of one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from d2csr.checks import one_of
from d2csr.commands.base import command, require_new, texts
from d2csr.errors import ConfigError, printable
from d2csr.files import user_path


@command("plot", lists=("run",), paths=("run", "output"))
def main(cfg: DictConfig) -> None:
    """Read the logs, draw the curves, and print what was written."""
    from d2csr.plotting import draw_curves, find_logs, read_run_log, shortest_names, write_figure

    runs = texts(cfg, "run")
    if not runs:
        raise ConfigError("run=… is missing: a run folder, or several in brackets; see --help.")
    logs = [log for run in runs for log in find_logs(run)]
    run_folder = user_path(runs[0]) if cfg.output is None and len(logs) == 1 and Path(runs[0]).is_dir() else None
    outputs = _outputs(run_folder or cfg.output)
    require_new([] if run_folder else outputs, cfg.overwrite)  # the curves of a run are written again
    figure = draw_curves([read_run_log(log, name) for log, name in zip(logs, shortest_names(logs), strict=True)])
    for path in outputs:
        write_figure(figure, path)
        print(printable(str(path)))


def _outputs(output: Any) -> list[Path]:
    """Return the files to write: the one with a suffix, or two in a folder, by default the working folder."""
    from d2csr.plotting import FORMATS

    path = user_path("." if output is None else str(output))
    if path.is_dir() or not path.suffix:
        return [path / f"curves{suffix}" for suffix in FORMATS[:2]]
    one_of("output", path.suffix.lower(), FORMATS)
    return [path]


if __name__ == "__main__":
    main()
