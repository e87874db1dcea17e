"""Disk: durable writing, with its failures in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.durable import write_durably
from pipeline.errors import CacheError

__all__ = ["failures_of_writing", "write_whole"]

_CONTINUES = (
    "Make room or give another place; what was finished is kept, and the same command continues."
)


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path, and put the file in place when the block ends.

    Raises
    ------
    CacheError
        When the disk is full or the folder cannot be written; nothing is left there.
    """
    with failures_of_writing(path, _CONTINUES), write_durably(path) as temporary:
        yield temporary


@contextmanager
def failures_of_writing(path: Path, way_out: str) -> Iterator[None]:
    """Say what the system says about a file that cannot be written, and what to do.

    Raises
    ------
    CacheError
        For every `OSError` in the block.
    """
    try:
        yield
    except OSError as error:
        raise CacheError(f"cannot write {path}: {error.strerror or error}. {way_out}") from error
