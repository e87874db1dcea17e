"""Colours: any picture in memory as 8-bit RGB.

One rule whatever the source: transparent pixels lie on white, 16-bit values keep
their high byte (scaled, never clipped), grey is three equal channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from pipeline.errors import InputError, UnreadableError
from pipeline.inputs.orientation import upright

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["as_rgb", "rgb_pixels"]

_ACCEPTED = "uint8 arrays of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) are accepted"


def as_rgb(image: Image.Image | NDArray[Any]) -> NDArray[np.uint8]:
    """Give a picture in memory as 8-bit RGB.

    Parameters
    ----------
    image : PIL image of any mode, or ndarray of uint8
        An array has shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). The orientation that
        a PIL image carries from its file is applied, as it is for files.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        C-contiguous and writable; the array that came in where it is so already.

    Raises
    ------
    UnreadableError
        When an array has another shape or dtype, or a PIL image cannot be loaded.
    InputError
        When it is neither.

    Examples
    --------
    >>> import numpy as np
    >>> as_rgb(np.full((2, 3), 7, dtype=np.uint8)).shape
    (2, 3, 3)
    """
    import numpy as np

    if isinstance(image, np.ndarray):
        return _array_pixels(image)
    if isinstance(image, Image.Image):
        try:
            return rgb_pixels(image)
        except UnreadableError:
            raise
        except Exception as error:  # a lazily opened file may fail in any way
            raise UnreadableError(f"PIL cannot load the picture: {error}") from None
    raise InputError(
        f"got a {type(image).__name__} as a picture, but only PIL images and {_ACCEPTED}. "
        "Give one of these, or the path of a file."
    )


def rgb_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Load a PIL image and give its pixels upright, as 8-bit RGB (H, W, 3)."""
    import numpy as np

    image.load()
    converted = _eight_bit(image)
    converted = _on_white(converted) if converted.has_transparency_data else converted
    # From the image that came in, whose EXIF block is whole only after loading.
    exif = image.info.get("exif") or b""
    return np.array(upright(converted.convert("RGB"), exif))


def _array_pixels(array: NDArray[Any]) -> NDArray[np.uint8]:
    import numpy as np

    if array.dtype != np.uint8:
        raise UnreadableError(
            f"got an array of {array.dtype}, but only {_ACCEPTED}. "
            "Scale the values to 0 to 255 and use array.astype('uint8')"
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise UnreadableError(
            f"got an array of shape {array.shape}, but only {_ACCEPTED}. "
            "Give one picture at a time, with its channels last"
        )
    if 0 in array.shape:
        raise UnreadableError(f"got an array of shape {array.shape}: a picture without pixels")
    if array.ndim == 3 and array.shape[2] == 4:
        return np.array(_on_white(Image.fromarray(array)))
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return np.require(array, requirements=["C_CONTIGUOUS", "WRITEABLE"])


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale wide values to 8 bits; PIL's own conversion clips them, so photos turn white."""
    import numpy as np

    if image.mode in ("I", "F"):
        raise UnreadableError("32-bit pixels: save the picture with 8 or 16 bits a channel")
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
