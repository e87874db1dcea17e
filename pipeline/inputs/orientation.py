"""Orientation: which way up a camera says that its picture is.

PIL's own reader warns aloud about broken EXIF blocks and also believes XMP; torchcodec
reads the tag as it is read here, so both decoders turn the same files.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from PIL.Image import Transpose

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["read_orientation", "upright"]

_TAG = 0x0112
_MARK = 42
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def read_orientation(exif: bytes) -> int:
    """Read the orientation of an EXIF block: 1 to 8, and 1 for a broken block or none.

    Examples
    --------
    >>> read_orientation(b"not EXIF at all")
    1
    """
    block = exif.removeprefix(b"Exif\0\0")
    order = "<" if block[:2] == b"II" else ">"
    try:
        if struct.unpack_from(f"{order}H", block, 2) != (_MARK,):
            return 1
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}H", block, entry) == (_TAG,):
                (value,) = struct.unpack_from(f"{order}H", block, entry + 8)
                return int(value) if value in _TURNS else 1
    except struct.error:  # the block ends early
        pass
    return 1


def upright(image: Image.Image, exif: bytes) -> Image.Image:
    """Turn a picture the way its EXIF block says."""
    turn = _TURNS.get(read_orientation(exif))
    return image if turn is None else image.transpose(turn)
