"""Progress of long work: a bar on a terminal, a plain line now and then in a log file.

Stages report rows done; whether anybody looks is the door's business.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Self

__all__ = ["Progress", "duration"]

_log = logging.getLogger(__name__)
_LINE_EVERY = 30.0


def duration(seconds: float) -> str:
    """Say a time in words short enough for a line.

    Examples
    --------
    >>> duration(0.21), duration(95), duration(7300)
    ('0.2 s', '1 min 35 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


class Progress:
    """Counts done units and shows rate and time left while it is open.

    Parameters
    ----------
    total : int
        Units of work in all.
    unit : str
        What is counted, plural.
    visible : bool
        ``False`` counts silently.

    Examples
    --------
    >>> with Progress(3, "images", visible=False) as progress:
    ...     progress.advance(2)
    >>> progress.done
    2
    """

    def __init__(self, total: int, unit: str, *, visible: bool) -> None:
        self.total, self.unit, self.visible, self.done = total, unit, visible, 0

    def __enter__(self) -> Self:
        self._start = self._last_line = time.perf_counter()
        self._bar = _bar(self.total, self.unit) if self.visible and _on_terminal() else None
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Count ``count`` more units as done."""
        self.done += count
        if self._bar:
            self._bar.advance(self._bar.task_ids[0], count)
        elif self.visible and time.perf_counter() - self._last_line >= _LINE_EVERY:
            self._last_line = time.perf_counter()
            _log.info("%s", self._line())

    def _line(self) -> str:
        rate = self.done / max(time.perf_counter() - self._start, 1e-9)
        left = duration((self.total - self.done) / rate) if rate else "unknown"
        return f"{self.done} of {self.total} {self.unit}, {rate:.0f} a second, {left} left"


def _on_terminal() -> bool:
    return sys.stderr.isatty()


def _bar(total: int, unit: str):  # type: ignore[no-untyped-def]
    """Build rich's bar; rich reads ``NO_COLOR``, ``TERM`` and ``COLUMNS`` by itself."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    class RateColumn(TextColumn):
        def render(self, task):  # type: ignore[no-untyped-def]
            from rich.text import Text

            return Text(f"{task.speed:.0f}/s" if task.speed else "")

    bar = RichProgress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        RateColumn(""),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    bar.add_task("", total=total)
    return bar
