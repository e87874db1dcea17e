"""Progress of long work: a bar on a terminal, a plain line now and then in a log file.

Stages report rows done; whether anybody looks is the door's business.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import rich.progress

__all__ = ["Progress", "duration"]

_log = logging.getLogger(__name__)
_FIRST_LINE_AFTER = 3.0
_LONG = 60.0
_LINE_EVERY = 30.0


def duration(seconds: float) -> str:
    """Say a time in words short enough for a line.

    Examples
    --------
    >>> duration(0.21), duration(95), duration(7300)
    ('0.2 s', '1 min 35 s', '2 h 1 min')
    """
    if seconds < 59.95:  # else it would round to 60.0 s
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


class Progress:
    """Counts done units and shows rate and time left while it is open.

    On a terminal that is a bar, elsewhere a line every half minute. When a few seconds have
    shown the pace and more than a minute is left, the first line comes at once, in both.

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
        self._began = time.perf_counter()
        self._next_line = self._began + _FIRST_LINE_AFTER if self.visible else math.inf
        self._said_first = False
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
        now = time.perf_counter()
        if self.done and now >= self._next_line:
            self._say(self.done / max(now - self._began, 1e-9))
            self._next_line = math.inf if self._bar else now + _LINE_EVERY

    def _say(self, rate: float) -> None:
        left = (self.total - self.done) / rate
        if self._said_first or left > _LONG:
            done = f"{self.done:,} of {self.total:,} {self.unit}"
            _log.info("%s, %.3g a second, about %s left", done, rate, duration(left))
        self._said_first = True


def _on_terminal() -> bool:
    return sys.stderr.isatty()


def _bar(total: int, unit: str) -> rich.progress.Progress:
    """Build rich's bar; rich reads ``NO_COLOR``, ``TERM`` and ``COLUMNS`` by itself."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.3g}/s" if task.speed else "")

    bar = RichProgress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        RateColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    bar.add_task("", total=total)
    return bar
