"""Reading: what a source holds, and the digest that names its content."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipeline.digest import digest_array, digest_bytes
from pipeline.errors import UnreadableError
from pipeline.inputs.colours import as_rgb
from pipeline.inputs.decoding import MAX_PIXELS, Decoder, decode_image
from pipeline.processors import usable_processors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Content", "digest_all", "read"]

_lazy_pictures = threading.Lock()
"""A PIL image that is still unread may stand in a list twice: one thread loads it."""


@dataclass(frozen=True)
class Content:
    """What a source holds.

    Parameters
    ----------
    data : bytes or ndarray of uint8, shape (H, W, 3)
        A whole file as it lies, or the pixels of a picture in memory.
    digest : bytes
        16 bytes that name the content.
    size : int
        Bytes.
    mtime_ns : int
        When the file was last changed; 0 for what is no file.
    """

    data: bytes | NDArray[np.uint8]
    digest: bytes
    size: int
    mtime_ns: int

    def pixels(
        self, decoder: Decoder = "torchcodec", *, max_pixels: int = MAX_PIXELS
    ) -> NDArray[np.uint8]:
        """Give it as upright 8-bit RGB (H, W, 3), decoding what is a file.

        Raises
        ------
        UnreadableError
            See `decode_image`.
        """
        if not isinstance(self.data, bytes):
            return self.data
        return decode_image(self.data, decoder, max_pixels=max_pixels)


def read(source: Any) -> Content:
    """Read a source and digest its content.

    Parameters
    ----------
    source : str, Path, bytes, PIL image or ndarray of uint8
        A path, the bytes of a file, or a picture in memory.

    Raises
    ------
    UnreadableError
        When a file is missing, forbidden, or no ordinary file (transient: the reason lies
        outside the content); when a picture in memory cannot become RGB.
    InputError
        When the source is of another kind.

    Examples
    --------
    >>> read(b"the bytes of a file").size
    19
    """
    if isinstance(source, (str, Path)):
        return _file(source)
    if isinstance(source, bytes):
        return Content(source, digest_bytes(source), len(source), 0)
    if isinstance(source, Image.Image):
        with _lazy_pictures:
            pixels = as_rgb(source)
        return Content(pixels, digest_array(pixels), pixels.nbytes, 0)
    pixels = as_rgb(source)
    return Content(pixels, digest_array(pixels), pixels.nbytes, 0)


def digest_all(sources: Sequence[Any]) -> list[tuple[bytes | None, str]]:
    """Digest the content of every source, in threads: None and the reason where it is unreadable.

    Examples
    --------
    >>> [(len(digest), reason) for digest, reason in digest_all([b"one", b"two"])]
    [(16, ''), (16, '')]
    """

    def digest(source: Any) -> tuple[bytes | None, str]:
        try:
            return read(source).digest, ""
        except UnreadableError as error:
            return None, error.reason

    with ThreadPoolExecutor(usable_processors()) as pool:
        return list(pool.map(digest, sources))


def _file(path: str | Path) -> Content:
    try:
        # Asked before opening: a pipe or a device would block for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnreadableError(_kind(path), transient=True)
        with open(path, "rb") as file:
            changed = os.fstat(file.fileno()).st_mtime_ns
            content = file.read()
    except FileNotFoundError:
        raise UnreadableError("no such file", transient=True) from None
    except PermissionError:
        raise UnreadableError("permission denied", transient=True) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableError(reason.lower(), transient=True) from None
    return Content(content, digest_bytes(content), len(content), changed)


def _kind(path: str | Path) -> str:
    kind = "a folder" if os.path.isdir(path) else "a pipe or a device"
    return f"not a file but {kind}"
