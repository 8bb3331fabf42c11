"""Progress reporting: a live bar on a terminal, occasional lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

PLAIN_SECONDS = 30.0  # between two lines where nobody watches live


class Progress:
    """Counts steps of a job of known length: rate, time left, and a remark of the caller's.

        with Progress(len(files), "images") as progress:
            for file in files:
                ...
                progress.advance(1, "12 boxes")

    Everything goes to standard error, so that results on standard output can be piped.
    """

    def __init__(self, total: int, unit: str, quiet: bool = False, done: int = 0) -> None:
        self.total, self.unit, self.quiet = total, unit, quiet
        self.done = self.first = done
        self.began = time.monotonic()
        self.printed = self.began
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                MofNCompleteColumn(),
                TextColumn(self.unit),
                BarColumn(),
                TextColumn("{task.fields[rate]:.1f}/s"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[remark]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=self.total, completed=self.done, rate=0.0, remark="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def rate(self) -> float:
        """Steps per second since the beginning."""
        return (self.done - self.first) / max(time.monotonic() - self.began, 1e-9)

    def advance(self, steps: int = 1, remark: str = "") -> None:
        """Counts ``steps`` more; ``remark`` stands behind the figures."""
        self.done += steps
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=self.rate, remark=remark)
        elif not self.quiet and time.monotonic() - self.printed > PLAIN_SECONDS:
            self.printed = time.monotonic()
            left = int((self.total - self.done) / max(self.rate, 1e-9))
            time_left = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}" if self.rate else "unknown"
            self.say(f"{self.done}/{self.total} {self.unit}  {self.rate:.1f}/s  {time_left} left  {remark}")

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        elif not self.quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def complain(self, text: str) -> None:
        """As `say`, also when quiet: a warning; the job continues."""
        if self._bar is not None:
            self.say(text)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
