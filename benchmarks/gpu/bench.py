"""Settings, checks and tables of the GPU benchmark, and the time budget of its parts."""

from __future__ import annotations

import json
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from d2csr.errors import one_line

PASSED, FAILED, UNMEASURED = "passed", "FAILED", "unmeasured"
NO_TIME = ("no time left", "out of time")  # notes of rows that were not measured
_AGAIN = 15.0  # seconds to the next alarm: Python drops an exception that is raised in a finalizer


class OutOfTimeError(BaseException):
    """The time budget of a part is used up.

    No Exception: torch's compiler turns these into errors of the compilation.
    """


@dataclass
class Check:
    """A requirement, and whether it is met."""

    name: str
    requirement: str
    status: str = UNMEASURED
    detail: str = "not reached"


@dataclass
class Part:
    """A part of the benchmark.

    Attributes:
        name: for ``--only``.
        seconds: its time budget on a GPU.
        checks: requirements by name.
        run: measures everything; called with the :class:`Bench`.
    """

    name: str
    seconds: float
    checks: dict[str, str]
    run: Callable[[Bench], None]


@dataclass
class Table:
    """Results, one row a measurement."""

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Bench:
    """The machine to measure, and what was found.

    Attributes:
        device: ``cuda`` or ``cpu``.
        devices: number of GPUs, or of processes on a CPU.
        tiny: small networks, images and numbers of steps: the same code in about a minute on a CPU.
        folder: for temporary files.
        lost: an error of CUDA, such as an illegal memory access, has made the GPU useless to this process.
    """

    device: torch.device
    devices: int
    tiny: bool
    folder: Path
    lost: bool = False
    checks: dict[str, Check] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    _deadline: float = 0.0

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def root(self) -> Path:
        """The checkout."""
        return Path(__file__).parents[2]

    def judge(self, name: str, met: bool, detail: str) -> None:
        """Record whether a requirement is met; a requirement that is judged several times has to be met each time."""
        check = self.checks[name]
        if check.status == FAILED and met:
            return
        check.status, check.detail = PASSED if met else FAILED, detail

    def judge_on_gpu(self, name: str, met: bool, detail: str) -> None:
        """Record a requirement of CUDA, about which a run on a CPU says nothing."""
        if self.cuda:
            self.judge(name, met, detail)
        else:
            self.skip(name, f"needs a GPU; here: {detail}")

    def judge_at_full_size(self, name: str, met: bool, detail: str) -> None:
        """Record a requirement of times or of a training's length, about which tiny networks on a GPU say nothing."""
        if self.cuda and self.tiny:
            self.skip(name, f"needs the full size; here: {detail}")
        else:
            self.judge_on_gpu(name, met, detail)

    def skip(self, name: str, reason: str) -> None:
        """Record why a requirement was not measured."""
        self.checks[name].detail = reason

    def table(self, title: str) -> Table:
        """Return the table with a title; add it if there is none."""
        found = next((table for table in self.tables if table.title == title), None)
        if found is None:
            found = Table(title)
            self.tables.append(found)
        return found

    def patience(self, seconds: float) -> float:
        """Return how long to wait for another process: longer on a CPU, which may be busy."""
        return seconds if self.cuda else 5 * seconds

    def left(self) -> float:
        """Return the seconds that are left for the present part."""
        return self._deadline - time.monotonic()

    @contextmanager
    def guard(self, row: dict[str, Any], *checks: str) -> Iterator[None]:
        """Record an error in a row, and continue with the next one; the checks that depend on it fail."""
        try:
            yield
        except (OutOfTimeError, KeyboardInterrupt):
            row["note"] = NO_TIME[1]
            raise
        except (Exception, SystemExit) as error:
            row["note"] = f"{type(error).__name__}: {one_line(error)}"
            self.errors.append(traceback.format_exc(limit=-6))
            for name in checks:
                if "needs a GPU" in row["note"]:
                    self.skip(name, row["note"])
                else:
                    self.judge(name, False, row["note"])
        finally:
            free(self.device)

    def run(self, part: Part, seconds: float) -> None:
        """Run a part within its time; an error ends the part alone."""
        started = time.monotonic()
        self._deadline = started + seconds
        outcome = "done"
        try:
            if seconds <= 0:
                raise OutOfTimeError
            with _alarm(seconds + min(10, 0.2 * seconds)):
                part.run(self)
        except OutOfTimeError:
            outcome = f"stopped after {max(seconds, 0):.0f} s"
        except (Exception, SystemExit) as error:
            outcome = f"{type(error).__name__}: {error}"
            self.errors.append(traceback.format_exc())
        self._free()
        self.parts[part.name] = {"seconds": round(time.monotonic() - started, 1), "outcome": outcome}
        for name in part.checks:
            if self.checks[name].status == UNMEASURED and self.checks[name].detail == "not reached":
                self.checks[name].detail = f"not reached: {outcome}".splitlines()[0]
                if ": " in outcome:
                    self.checks[name].status = FAILED

    def _free(self) -> None:
        try:
            free(self.device)
        except RuntimeError:
            self.lost = True
            self.errors.append(traceback.format_exc())

    def seconds(self) -> int:
        """Return the time of all parts so far."""
        return round(sum(part["seconds"] for part in self.parts.values()))

    def failed(self) -> list[str]:
        """Return the names of requirements that are not met; those of a part that ended with an error are not."""
        return [check.name for check in self.checks.values() if check.status == FAILED]

    def load(self, content: dict[str, Any]) -> None:
        """Add what another process has found: the content of :meth:`as_json`."""
        self.checks = {check["name"]: Check(**check) for check in content["checks"]} | self.checks
        self.tables += [Table(**table) for table in content["tables"]]
        self.parts |= content["parts"]
        self.errors += content["errors"]

    def as_json(self, about: dict[str, Any]) -> str:
        """Return everything as JSON."""
        content = {
            "about": about,
            "parts": self.parts,
            "errors": self.errors,
            "checks": [asdict(check) for check in self.checks.values()],
            "tables": [asdict(table) for table in self.tables],
        }
        return json.dumps(content, indent=2, default=str) + "\n"

    def as_markdown(self, about: dict[str, Any]) -> str:
        """Return the checks and the tables as Markdown."""
        lines = [", ".join(f"{name} {value}" for name, value in about.items()), ""]
        lines += ["| check | requirement | | found |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {_plain(c.name)} | {_plain(c.requirement)} | {c.status} | {_plain(c.detail)} |"
            for c in self.checks.values()
        ]
        for table in self.tables:
            lines += ["", f"### {table.title}", "", *_markdown_rows(table.rows)]
        lines += ["", "### Parts", "", *_markdown_rows([{"part": name, **part} for name, part in self.parts.items()])]
        return "\n".join(lines) + "\n"


def _markdown_rows(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["(no rows)"]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join(['---'] * len(columns))} |"]
    return lines + [f"| {' | '.join(_shown(row.get(name)) for name in columns)} |" for row in rows]


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return _plain(str(value))


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise an OutOfTimeError in a block that takes longer, also in the middle of a compilation."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1), _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def free(device: torch.device) -> None:
    """Free what the last measurement left on the device."""
    import gc

    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
