"""Durable files: whole or absent, whatever the moment of a kill or a power cut.

A file is written beside its place, forced to the disk, renamed over its place, and the
folder that holds the name is forced to the disk too. Every file of ours goes this way.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["make_folder_durably", "remove_temporaries", "write_durably"]


@contextmanager
def write_durably(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and put the file in place when the block ends.

    Parameters
    ----------
    path : Path
        Where the file shall stand. A file that stands there is replaced by one rename:
        who has it open keeps reading the old one.

    Yields
    ------
    Path
        A hidden name in the same folder. When the block raises, it is removed and what
        stood at ``path`` is as it was.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder, "model.bin")
    ...     with write_durably(target) as temporary:
    ...         _ = temporary.write_bytes(b"weights")
    ...     print(target.read_bytes(), len(list(Path(folder).iterdir())))
    b'weights' 1
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        _force_to_disk(temporary, os.O_RDONLY)
        os.replace(temporary, path)
        _force_to_disk(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(path: Path) -> None:
    """Remove what killed writers of ``path`` left; call it only where no other can be writing."""
    for leftover in path.parent.glob(f".{_escaped(path.name)}.????????.tmp"):
        leftover.unlink(missing_ok=True)


def make_folder_durably(folder: Path) -> None:
    """Make a folder, its parents too, and force its name to the disk."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _force_to_disk(folder.parent, os.O_RDONLY | os.O_DIRECTORY)


def _force_to_disk(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _escaped(name: str) -> str:
    """Keep glob from reading a name as a pattern."""
    import glob

    return glob.escape(name)
