"""How fast a training goes."""

from __future__ import annotations

import time


class Pace:
    """Counts samples and steps against the clock, which stands still while it is paused.

    Attributes:
        samples: since the clock was started.
        steps: likewise.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Set everything to nothing, and let the clock run."""
        self.samples = 0
        self.steps = 0
        self._before = 0.0
        self._since: float | None = time.perf_counter()

    def count(self, samples: int) -> None:
        """Count a step."""
        self.samples += samples
        self.steps += 1

    def pause(self) -> None:
        """Stop the clock."""
        self._before = self.seconds
        self._since = None

    def go_on(self) -> None:
        """Let the clock run on."""
        if self._since is None:
            self._since = time.perf_counter()

    @property
    def seconds(self) -> float:
        """What the clock shows."""
        return self._before + (0.0 if self._since is None else time.perf_counter() - self._since)

    @property
    def samples_per_second(self) -> float:
        """Return the samples a second, 0 before the first one."""
        return self.samples / self.seconds if self.samples else 0.0
