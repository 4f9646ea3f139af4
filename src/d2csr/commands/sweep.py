"""Results of the jobs of a sweep (``--multirun``), and the table of them."""

from __future__ import annotations

import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from d2csr.errors import Stopped
from d2csr.files import atomic_write

RESULT = "job.json"

_sweep: tuple[Path, float] | None = None  # the folder of the sweep of this process, and its start


class JobFailed(CompactHydraException):
    """A job that failed; its message is on the screen already. Sweepers count it as a failed trial."""


def begin(folder: Path) -> None:
    """Remember the folder of a sweep that starts."""
    global _sweep
    _sweep = folder, time.time() - 1  # file systems round times


def run_job(job: Callable[[], Any], explain: Callable[[BaseException], str | None], *, resumes: bool = False) -> Any:
    """Run a job and return its score; in a sweep, write the result into its folder.

    ``explain`` returns the message of a user's mistake. A job that ``resumes`` the one in its folder, if there is any,
    adds to the seconds of that one, and keeps its score if there is nothing left to do.

    Raises:
        JobFailed: the job of a sweep failed. The other jobs go on.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return job()
    folder = Path(hydra.runtime.output_dir)
    before = _read(folder) if resumes else {}
    start, start_of_cpu = time.perf_counter(), time.process_time()
    try:
        score = job()
    except (Exception, SystemExit) as error:
        cause = error.__context__ if isinstance(error, SystemExit) else error
        if not isinstance(cause, Exception) or isinstance(cause, Stopped):
            raise  # Ctrl-C or a signal ends all jobs
        if not isinstance(error, SystemExit):  # a defect, whose traceback Hydra would show for the first job alone
            traceback.print_exc()
        message = explain(cause) or f"{type(cause).__name__}: {cause}"
        _write(folder, {"state": "failed", "message": message})
        raise JobFailed(f"job {hydra.job.num} failed.") from None
    seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - start_of_cpu}
    seconds = {name: round(value + before.get(name, 0.0), 3) for name, value in seconds.items()}
    found = float(score) if isinstance(score, int | float) and math.isfinite(score) else None
    _write(folder, {"state": "done", "score": before.get("score") if found is None else found, **seconds})
    return before.get("score", score) if found is None else score


def report() -> bool:
    """Print the table of the sweep that this process has run, if any; return whether a job failed."""
    global _sweep
    if _sweep is None:
        return False
    (folder, start), _sweep = _sweep, None
    jobs = list(_jobs(folder, start))
    if not jobs:
        return False
    common = set.intersection(*(set(overrides) for _, overrides, _ in jobs))
    rows = [("job", "settings", "score", "state")]  # the state last, since messages are long
    for name, overrides, result in jobs:
        differing = " ".join(override for override in overrides if override not in common)
        score = result.get("score")
        text = result.get("message", "").splitlines()
        state = f"{result['state']}: {text[0]}" if text else result["state"]
        rows.append((name, differing, "" if score is None else f"{score:.4f}", state))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    failed = sum(result["state"] != "done" for *_, result in jobs)
    print(f"\n{folder}: {len(jobs) - failed} of {len(jobs)} jobs are done\n\n" + "\n".join(lines), flush=True)
    return failed > 0


def _jobs(folder: Path, start: float) -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    """Yield folder, overrides and result of each job, in the order in which they began."""
    files = [path for path in folder.rglob(".hydra/overrides.yaml") if path.stat().st_mtime >= start]
    for path in sorted(files, key=lambda path: (path.stat().st_mtime, path)):
        run, result = path.parent.parent, {"state": "no result"}  # killed
        if (run / RESULT).is_file() and (run / RESULT).stat().st_mtime >= start:
            result = _read(run)
        yield str(run.relative_to(folder)), [str(item) for item in OmegaConf.load(path)], result


def _read(folder: Path) -> dict[str, Any]:
    """Return the result of an earlier job in a folder, empty without one."""
    try:
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(folder: Path, result: dict[str, Any]) -> None:
    if "torch" in sys.modules:
        from d2csr.distributed import is_rank_zero

        if not is_rank_zero():
            return
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / RESULT) as partial:
        partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
