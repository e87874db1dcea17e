"""How the command line speaks: data on standard output, everything else on standard error."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["INTERRUPTED", "printable", "say", "show_json", "show_line", "talking"]

INTERRUPTED = 130
"""Exit code of what Ctrl-C ended."""


@contextmanager
def talking() -> Iterator[None]:
    """Send the messages of all stages to standard error, as they come.

    A terminal that cannot show a letter of a name gets its escape, never an error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Escaped("%(message)s"))
    log = logging.getLogger("pipeline")
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are no news
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


class _Escaped(logging.Formatter):
    """Keeps the names of strangers' files from steering the terminal: a message is a line."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def printable(text: str) -> str:
    r"""Escape control characters, line breaks and lone surrogates.

    Examples
    --------
    >>> printable("a\x1b[2Jb\nc")
    'a\\x1b[2Jb\\nc'
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def say(*lines: str) -> None:
    """Write a message for the user; a name that holds a line break makes no line of its own."""
    for line in lines:
        print(printable(line), file=sys.stderr)


def show_line(line: str) -> None:
    """Write a line of data."""
    print(printable(line))


def show_json(value: Any) -> None:
    """Write one JSON object, the only thing on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=True))
