"""What the first bytes of a file say it is: a picture format, or something else by its name."""

from __future__ import annotations

import codecs

__all__ = ["appearance", "picture_format"]

_PICTURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_OTHERS = {
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript document",
    b"8BPS": "a Photoshop document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"RIFF": "a sound or a film",
    b"OggS": "a sound or a film",
    b"ID3": "a sound",
    b"\x00\x05\x16\x07": "the sidecar that macOS writes beside a file",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself with `git lfs pull`",
}
_BEGINNING = 512


def picture_format(content: bytes) -> str | None:
    """Name the picture format that a file begins like, whatever its name says.

    Returns
    -------
    str or None
        ``"JPEG"``, ``"PNG"``, ``"GIF"``, ``"WebP"``, ``"BMP"``, ``"TIFF"``, ``"HEIC"`` or
        ``"AVIF"``; None for anything else.

    Examples
    --------
    >>> picture_format(b"GIF89a and so on")
    'GIF'
    """
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WebP"
    if content[4:8] == b"ftyp":
        return _boxed_format(content)
    return _match(content, _PICTURES)


def appearance(content: bytes) -> str:
    """Say what a file that is no picture looks like.

    Examples
    --------
    >>> appearance(b"<!DOCTYPE html><title>404</title>")
    'an HTML page'
    """
    if not content.strip(b"\0"):
        return "nothing but zero bytes"
    if content[4:8] == b"ftyp":
        return "a film"
    return _match(content, _OTHERS) or _text(content[:_BEGINNING]) or _unknown(content)


def _boxed_format(content: bytes) -> str | None:
    """Read the brands of an ISO media file: its major one, then the compatible ones."""
    size = int.from_bytes(content[:4], "big")
    listed = content[8:12] + content[16 : min(size, _BEGINNING)]
    brands = {listed[start : start + 4] for start in range(0, len(listed), 4)}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else None


def _match(content: bytes, signatures: dict[bytes, str]) -> str | None:
    return next((name for start, name in signatures.items() if content.startswith(start)), None)


def _text(beginning: bytes) -> str | None:
    try:
        # Incremental, because the last character may be cut in two.
        text = codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    text = text.lstrip("\ufeff \r\n\t").lower()
    if text.startswith(("<!doctype html", "<html")):
        return "an HTML page"
    if "<svg" in text:
        return "an SVG drawing"
    return "a text file"


def _unknown(content: bytes) -> str:
    return f"an unknown format that begins with the bytes {content[:4].hex(' ')}"
