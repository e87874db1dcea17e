"""A disk that kills: something happens before, in or after the n-th change of the disk."""

import io
import itertools
import os
import signal

CALLS = ("fsync", "replace", "unlink", "rmdir", "mkdir")
MANNERS = ("before", "half", "after")
"""``half`` leaves the first half of a write; what cannot be halved is not begun."""


class DeadlyDisk:
    """Stands between Python and the disk, in the process that shall die.

    Every `write` of a file that was opened for writing counts, and so does every call that
    forces, renames, removes or makes something. It dies as by kill -9: no ``finally`` runs.
    Another ``deed`` than dying lets it go on.
    """

    def __init__(self, moment: int = 0, manner: str = "before", deed=None) -> None:
        self.moment, self.manner, self.deed = moment, manner, deed or _die
        self.changes = 0
        self._numbers = itertools.count(1)

    def install(self) -> "DeadlyDisk":
        for name in CALLS:
            setattr(os, name, self._deadly(getattr(os, name)))
        self._opened = io.open
        io.open = self._open
        return self

    def _deadly(self, call):
        return lambda *args, **kwargs: self.change(lambda: call(*args, **kwargs))

    def change(self, call, half=None):
        self.changes = next(self._numbers)
        due = self.changes == self.moment
        if due and self.manner != "after":
            if half is not None and self.manner == "half":
                half()
            self.deed()
        try:
            return call()
        finally:
            if due and self.manner == "after":
                self.deed()

    def _open(self, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **more):
        """Open as `io.open` does, with a raw file that counts its writes."""
        if not set(mode) & set("wax+"):
            return self._opened(file, mode, buffering, encoding, errors, newline, **more)
        raw = _DeadlyFile(self, file, mode.replace("b", "").replace("t", ""))
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline)


class _DeadlyFile(io.FileIO):
    def __init__(self, disk: DeadlyDisk, file, mode: str) -> None:
        super().__init__(file, mode)
        self._disk = disk

    def write(self, content):
        write, view = super().write, memoryview(content)
        return self._disk.change(lambda: write(view), lambda: write(view[: len(view) // 2]))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
