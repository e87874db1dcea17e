"""Augmentation: views of one picture, each a little different, the same wherever it is made."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pipeline.errors import OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["View"]

_MIRROR = -1
_SMALLEST = 0.85
"""Least side of the window, as a share of the picture's."""
_BEYOND = 0.05
"""How far the window may stand over the border, as a share of the picture's side."""


@dataclass(frozen=True)
class View:
    """One way to look at every picture.

    View 0 is the clean picture. Any other cuts out a window whose sides are 85 to 100 % of
    the picture's, at a random place that may reach 5 % of the side over the border (whose
    pixels are repeated there), and turns every second picture around if ``flip``.

    What a view does to a picture follows from the two numbers and the picture's content
    alone: not from its place in a batch, the threads, the machine or a library's generator.

    Parameters
    ----------
    number : int
        0 for the clean picture, 1 and more for random views; see also `mirror`.
    seed : int
        Another seed gives other random views.
    flip : bool
        Whether a random view may be a mirror image.

    Examples
    --------
    >>> import numpy as np
    >>> pixels = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    >>> View(0).of(pixels, b"digest").tolist(), View.mirror().of(pixels, b"digest").tolist()
    ([[[0, 1, 2], [3, 4, 5]]], [[[3, 4, 5], [0, 1, 2]]])
    """

    number: int
    seed: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.number < _MIRROR:
            raise OptionError(
                f"the number of a view is {self.number}, but must be 0 for the clean picture or "
                "more for a random view. Count views from 0."
            )

    @classmethod
    def mirror(cls) -> Self:
        """Give the view that turns every clean picture around, left to right."""
        return cls(_MIRROR)

    def of(self, pixels: NDArray[np.uint8], digest: bytes) -> NDArray[np.uint8]:
        """Look at a picture.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (H, W, 3)
            Decoded, C-contiguous and writable. It is left as it is.
        digest : bytes
            Names the content that the pixels were decoded from.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            C-contiguous and writable; where there is nothing to change, ``pixels`` itself.
        """
        if self.number == 0:
            return pixels
        if self.number == _MIRROR:
            return _turned_around(pixels)
        scale, down, right, side = self._draws(digest)
        share = _SMALLEST + (1 - _SMALLEST) * scale
        rows, columns = (
            _window(length, share, place)
            for length, place in zip(pixels.shape[:2], (down, right), strict=True)
        )
        seen = _cut(pixels, rows, columns)
        return _turned_around(seen) if self.flip and side < 0.5 else seen

    def _draws(self, digest: bytes) -> tuple[float, ...]:
        """Draw four numbers from 0 to 1: the same for one picture with or without ``flip``."""
        drawn = hashlib.blake2b(f"{self.seed} {self.number} ".encode() + digest, digest_size=32)
        return tuple(whole / 2**64 for whole in struct.unpack("<4Q", drawn.digest()))


def _window(length: int, share: float, place: float) -> tuple[int, int]:
    """First and behind-last pixel of a window on one axis; it may begin before 0."""
    size, beyond = max(1, round(share * length)), _BEYOND * length
    start = round(place * (length - size + 2 * beyond) - beyond)
    return start, start + size


def _cut(
    pixels: NDArray[np.uint8], rows: tuple[int, int], columns: tuple[int, int]
) -> NDArray[np.uint8]:
    """Cut a window out, repeating the border where it stands over."""
    import numpy as np

    windows = list(zip((rows, columns), pixels.shape, strict=False))
    inside = pixels[tuple(slice(max(0, start), stop) for (start, stop), _ in windows)]
    over = [(max(0, -start), max(0, stop - length)) for (start, stop), length in windows]
    if not any(map(any, over)):
        return np.ascontiguousarray(inside)
    return np.pad(inside, [*over, (0, 0)], mode="edge")


def _turned_around(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import numpy as np

    turned = np.empty_like(pixels)
    for channel in range(pixels.shape[2]):  # four times as fast as pixel by pixel
        turned[:, :, channel] = pixels[:, ::-1, channel]
    return turned
