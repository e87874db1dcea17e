"""Decoding: the bytes of a picture file as upright 8-bit RGB.

One function decides, and by the file alone: torchcodec for what it decodes bit for bit
like PIL (JPEG and plain 8-bit PNG), PIL for everything else and for what torchcodec
rejects. So the same bytes give the same pixels whatever the load, and on a machine
without torchcodec too.
"""

from __future__ import annotations

import importlib
import io
import re
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Literal, get_args

from PIL import ImageFile

from pipeline.errors import OptionError, UnknownNameError, UnreadableError
from pipeline.inputs.colours import rgb_pixels
from pipeline.inputs.formats import appearance, picture_format

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_PIXELS", "Decoder", "available_decoder", "check_decoder", "decode_image"]

Decoder = Literal["torchcodec", "pil"]

MAX_PIXELS = 178_956_970
"""Pixels of the largest picture that is decoded: PIL's limit (half a gigabyte of RGB)."""

_PLUGINS = {
    "JPEG": "Jpeg",
    "PNG": "Png",
    "GIF": "Gif",
    "WebP": "WebP",
    "BMP": "Bmp",
    "TIFF": "Tiff",
    "AVIF": "Avif",
}
_HUSHED = re.compile(r"PIL\.")
_PLANAR, _BITS = 284, 258
"""Tags of a TIFF."""

_IHDR_DEPTH = 24
"""Where a PNG says how many bits a sample has."""


def decode_image(
    content: bytes, decoder: Decoder = "torchcodec", *, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Decode JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF or HEIC.

    The first frame or page, turned upright by its EXIF orientation. Transparency lies on
    white; 16-bit values are scaled.

    Parameters
    ----------
    content : bytes
        The whole file.
    decoder : {"torchcodec", "pil"}
        ``"pil"`` uses PIL alone; the pixels are the same.
    max_pixels : int
        Larger pictures are refused from their header, before any memory is asked for.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB, C-contiguous.

    Raises
    ------
    UnreadableError
        When the content is no picture, damaged, cut off, or too large.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("LA", (4, 2), (0, 0)).save(file, "png")
    >>> decode_image(file.getvalue(), "pil").tolist()[0][0]
    [255, 255, 255]
    """
    if not content:
        raise UnreadableError("the file is empty")
    kind = picture_format(content)
    if kind is None:
        raise UnreadableError(f"not a picture: it looks like {appearance(content)}")
    try:
        with _opened(kind, content) as header:
            _check_size(header.size, max_pixels)
            _check_planes(header)
            pixels = _fast_pixels(content, header) if decoder == "torchcodec" else None
            return rgb_pixels(header) if pixels is None else pixels
    except (UnreadableError, OptionError, MemoryError):
        raise
    except Exception as error:  # foreign bytes can make a decoder raise anything
        said = str(error) or type(error).__name__
        raise UnreadableError(f"damaged {kind}: {said}") from None


def available_decoder() -> Decoder:
    """Name the decoder of first choice that this machine can import."""
    try:
        _torchcodec()
    except OptionError:
        return "pil"
    return "torchcodec"


def check_decoder(decoder: str) -> None:
    """Refuse a decoder that does not exist, or that this machine cannot import.

    Raises
    ------
    UnknownNameError, OptionError
    """
    if decoder not in get_args(Decoder):
        raise UnknownNameError("decoder", decoder, get_args(Decoder))
    if decoder == "torchcodec":
        _torchcodec()


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UnreadableError(
            f"{width:,} x {height:,} pixels are more than the limit of {max_pixels:,}: "
            "raise it with --max-pixels",
            transient=True,  # the limit lies outside the file
        )


def _check_planes(header: ImageFile.ImageFile) -> None:
    """Refuse the one file that PIL misreads in silence."""
    tags = getattr(header, "tag_v2", {})
    planar, deep = tags.get(_PLANAR) == 2, tags.get(_BITS, (8,))[0] > 8
    if planar and deep and header.tile[0][0] == "raw":
        raise UnreadableError(
            "16-bit TIFF of uncompressed separate planes: save it with interleaved channels"
        )


def _fast_pixels(content: bytes, header: ImageFile.ImageFile) -> NDArray[np.uint8] | None:
    """Decode with torchcodec what it decodes like PIL; None leaves the file to PIL."""
    import numpy as np

    codec, torch = _torchcodec()
    if header.format == "JPEG" and header.mode in ("L", "RGB"):
        decode = codec.decode_jpeg
    elif header.format == "PNG" and _is_plain_png(content, header):
        decode = codec.decode_png
    else:
        return None
    try:
        # A tensor: given bytes, torchcodec changes the warning filters of the process.
        decoded = decode(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    except (RuntimeError, ValueError):
        return None
    # The memory lies as (H, W, C) already, unless the picture was turned upright.
    pixels: NDArray[np.uint8] = np.ascontiguousarray(decoded.permute(1, 2, 0).numpy())
    return pixels


def _is_plain_png(content: bytes, header: ImageFile.ImageFile) -> bool:
    """8 bits at most, opaque, one frame, and no EXIF chunk anywhere (it may come last)."""
    return (
        content[_IHDR_DEPTH] <= 8
        and not header.has_transparency_data
        and not getattr(header, "is_animated", False)
        and b"eXIf" not in content
    )


def _opened(kind: str, content: bytes) -> ImageFile.ImageFile:
    """Read the header only.

    With the format's own class, because `Image.open` warns from half of its own limit
    of pixels on, and refuses above it whatever limit the caller set.
    """
    _hush_pil()
    if kind == "HEIC":
        return _opened_heic(content)
    name = _PLUGINS[kind]
    plugin = importlib.import_module(f"PIL.{name}ImagePlugin")
    picture: ImageFile.ImageFile = getattr(plugin, f"{name}ImageFile")(io.BytesIO(content))
    return picture


def _opened_heic(content: bytes) -> ImageFile.ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise UnreadableError(
            "HEIC needs pillow-heif: pip install 'transfer-pipeline[heif]'", transient=True
        ) from None
    picture: ImageFile.ImageFile = HeifImageFile(io.BytesIO(content))
    return picture


def _hush_pil() -> None:
    """Ignore PIL's remarks on odd metadata: the pixels are sound, or an error is raised.

    A filter for PIL's modules alone that stays in front, because `warnings.catch_warnings`
    swaps the filters of all threads and is not safe in any.
    """
    if not warnings.filters or _HUSHED not in warnings.filters[0]:
        warnings.filterwarnings("ignore", module=_HUSHED.pattern)


def _torchcodec() -> tuple[ModuleType, ModuleType]:
    """Import torchcodec's decoders, and torch."""
    try:
        import torch
        import torchcodec.decoders
    except (ImportError, OSError, RuntimeError) as error:
        raise OptionError(
            f"decoder torchcodec cannot be imported here ({error}); decoder pil can. "
            "Choose decoder pil, or install a torchcodec that matches this torch."
        ) from None
    return torchcodec.decoders, torch
