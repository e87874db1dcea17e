"""Disk: durable writing, with its failures in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.durable import write_durably
from pipeline.errors import CacheError

__all__ = ["write_whole"]


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path, and put the file in place when the block ends.

    Raises
    ------
    CacheError
        When the disk is full or the folder cannot be written; nothing is left there.
    """
    try:
        with write_durably(path) as temporary:
            yield temporary
    except OSError as error:
        raise CacheError(
            f"cannot write {path}: {error.strerror or error}. Make room or give another place; "
            "what was finished is kept, and the same command continues."
        ) from error
