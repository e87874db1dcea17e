"""The lock: one writer at a time. Readers need none."""

from __future__ import annotations

import getpass
import json
import logging
import os
import platform
import time
from pathlib import Path
from typing import Self

from pipeline.errors import CacheBusyError, CacheError
from pipeline.progress import duration

__all__ = ["CacheLock"]

_log = logging.getLogger(__name__)


class CacheLock:
    """Holds ``<cache>.lock`` while its block runs.

    The kernel's lock decides and ends with the process, even by kill -9, so it cannot go
    stale. The JSON inside the file is only for the message of who must wait.

    Parameters
    ----------
    cache : str or Path
        The cache. Its folder is made if need be.
    wait : bool
        Whether to wait for another holder, saying so once, or to refuse.

    Raises
    ------
    CacheBusyError
        On entering, when another process or thread holds the lock and ``wait`` is false:
        it names the holder's host, process and age.
    CacheError
        On entering, when the folder cannot be made or written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with CacheLock(f"{folder}/cache.h5"):
    ...         print([path.name for path in Path(folder).iterdir()])
    ...     print([path.name for path in Path(folder).iterdir()])
    ['cache.h5.lock']
    []
    """

    def __init__(self, cache: str | os.PathLike[str], *, wait: bool = False) -> None:
        from filelock import FileLock

        self.cache, self.wait = os.fspath(cache), wait
        self.path = Path(f"{self.cache}.lock")
        self._lock = FileLock(self.path)

    def __enter__(self) -> Self:
        from filelock import Timeout

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            holder = self._holder()  # before trying: an old filelock empties the file
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                if not self.wait:
                    raise CacheBusyError(self.cache, holder or self._holder()) from None
                _log.warning("%s is being written by %s: waiting", self.cache, holder)
                self._lock.acquire()
            self.path.write_text(json.dumps(_this_process()))
        except OSError as error:
            self._lock.release()
            made = isinstance(error, FileExistsError)  # by making a folder where a file stands
            reason = "its folder is a file" if made else error.strerror or error
            raise CacheError(
                f"cannot write {self.cache}: {reason}. Give a place in a folder that can be "
                "written, on a disk with room."
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        # Removed while still held. Who has opened the file before finds, once it gets the
        # kernel's lock, that the file has no name any more, and starts over (filelock does).
        self.path.unlink(missing_ok=True)
        self._lock.release()

    def _holder(self) -> str:
        """Say who holds the lock, as far as the text tells."""
        try:
            held = json.loads(self.path.read_text())
            age = duration(max(0.0, time.time() - float(held["start"])))
            return f"process {held['pid']} of {held['user']} on {held['host']}, since {age}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"


def _this_process() -> dict[str, str | int | float]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a passwd entry
        user = str(os.getuid())
    return {"host": platform.node(), "pid": os.getpid(), "user": user, "start": time.time()}
