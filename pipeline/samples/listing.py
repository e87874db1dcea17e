"""Listing: what a source turned out to hold, before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import InputError
from pipeline.samples.column import Column

__all__ = [
    "IMAGE_SUFFIXES",
    "Listing",
    "counted",
    "escaped",
    "naming_failure",
    "refuse_empty",
    "suffix_of",
]

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""What makes a file of a folder an image, in any case (``.JPG``)."""


@dataclass(frozen=True)
class Listing:
    """Rows of a source with their columns, what cannot become a row, and what was passed over.

    Parameters
    ----------
    ids : sequence of str
        Unique names of the rows, in the source's order.
    paths : sequence of Path
        Where they lie.
    root : Path
        What relative ids are relative to.
    columns : mapping of str to column
        Cells of every column, row by row.
    split : sequence of {"train", "val", "test", ""}, optional
        The given split.
    failed : sequence of (str, str)
        Id and reason of what was meant to be a row and cannot be one.
    skipped : mapping of str to int
        What was passed over, counted by suffix or by what it is.
    """

    ids: Sequence[str]
    paths: Sequence[Path]
    root: Path
    columns: Mapping[str, Column] = field(default_factory=dict)
    split: Sequence[str] | None = None
    failed: Sequence[tuple[str, str]] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)


def suffix_of(name: str) -> str:
    """Suffix of a file name in lower case, with its dot; ``""`` without one.

    Examples
    --------
    >>> suffix_of("holiday.2024.JPG"), suffix_of("README")
    ('.jpg', '')
    """
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def escaped(name: str) -> str:
    r"""Write a file name that is not UTF-8 as text that is.

    Examples
    --------
    >>> escaped("caf\udce9.jpg")
    'caf\\udce9.jpg'
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def naming_failure(name: str) -> str | None:
    """Say why a path cannot be an id, if it cannot."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    return "its name holds a zero character" if "\0" in name else None


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Count in words.

    Examples
    --------
    >>> counted(1, "image"), counted(12, "class", "classes")
    ('1 image', '12 classes')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def refuse_empty(listing: Listing, source: Path, remedy: str) -> Listing:
    """Give the listing back unless it has no row.

    Raises
    ------
    InputError
        Naming the commonest reason, or what there was instead of images.
    """
    if listing.ids:
        return listing
    if listing.failed:
        reasons = [reason for _, reason in listing.failed]
        commonest = max(reasons, key=reasons.count)
        raise InputError(
            f"none of {counted(len(reasons), 'input')} of {source} can be used; the commonest "
            f"reason: {commonest}. {remedy}"
        )
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(listing.skipped.items()))
    if not found:
        raise InputError(f"{source} is empty. {remedy}")
    raise InputError(
        f"{source} holds no image; found: {found}. Accepted suffixes: "
        f"{' '.join(sorted(IMAGE_SUFFIXES))}. {remedy}"
    )
