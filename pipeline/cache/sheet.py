"""A sheet: a file in memory that holds only the pages that were written.

HDF5 crashes the process when a disk fills up under it (seen with 2.0). So it writes the
structure of a cache here, around the room of gigabytes that it reserves for the layers,
and what it wrote goes to the disk by plain writes, which fail with an error.
"""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO

__all__ = ["Sheet"]

_PAGE = 1 << 16


class Sheet(io.RawIOBase):
    r"""A file in memory, whose unwritten pages are zeros and take no room.

    Examples
    --------
    >>> sheet = Sheet()
    >>> _ = sheet.seek(10**12), sheet.write(b"far away")
    >>> _ = sheet.seek(10**12 - 2)
    >>> sheet.read(5), sheet.seek(0, os.SEEK_END)
    (b'\x00\x00far', 1000000000008)
    """

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._size = self._place = 0

    def readable(self) -> bool:
        """Say yes."""
        return True

    def writable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place, counted from the start, here or the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the file reaches."""
        target = memoryview(buffer).cast("B")
        count = done = max(0, min(len(target), self._size - self._place))
        while done:
            page, start, stop = self._span(done)
            found = self._pages.get(page)
            piece = bytes(stop - start) if found is None else found[start:stop]
            target[count - done : count - done + len(piece)] = piece
            self._place, done = self._place + len(piece), done - len(piece)
        return count

    def write(self, content: Any) -> int:
        """Write here, making the pages that are touched."""
        source = memoryview(content).cast("B")
        left = len(source)
        while left:
            page, start, stop = self._span(left)
            done = len(source) - left
            piece = source[done : done + stop - start]
            self._pages.setdefault(page, bytearray(_PAGE))[start:stop] = piece
            self._place, left = self._place + len(piece), left - len(piece)
        self._size = max(self._size, self._place)
        return len(source)

    def truncate(self, size: int | None = None) -> int:
        """Set the size; HDF5 calls it once, with the size of the finished file."""
        self._size = self._place if size is None else size
        return self._size

    def copy_to(self, file: BinaryIO) -> None:
        """Write what stands here to a file on disk, leaving holes for the rest."""
        for page, content in sorted(self._pages.items()):
            file.seek(page * _PAGE)
            file.write(content[: self._size - page * _PAGE])
        file.truncate(self._size)

    def _span(self, length: int) -> tuple[int, int, int]:
        """Find the page of the place, and the span in it that ``length`` bytes reach."""
        page, start = divmod(self._place, _PAGE)
        return page, start, min(_PAGE, start + length)
