"""The seal: damage of anything that steers the reader is found before HDF5 sees a byte.

HDF5 alone reads 28 % of damaged files without complaint, and hangs on some. So the user
block in front of it (any HDF5 reader skips it) holds two lines: a magic line, and JSON with
the format version, the file's size, the byte extents of the layer datasets and a digest of
every byte outside them. The layers themselves are guarded by the checksums of their blocks.

The seal can be forged: it protects against accidents, not against an attacker.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.cache.contents import FORMAT_VERSION
from pipeline.digest import DIGEST_SIZE
from pipeline.errors import CacheDamagedError, CacheError

__all__ = ["Extent", "Seal", "check_seal", "is_cache", "seal", "user_block_size"]

MAGIC = b"transfer-pipeline cache\n"
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_UNSIGNED = "0" * (2 * DIGEST_SIZE)
_LONGEST_SEAL = 1 << 20
_PIECE = 1 << 20
_OTHERS = " (damage, or another program that opened it for writing)"

Extent = tuple[int, int]
"""Offset and size in bytes."""


@dataclass(frozen=True)
class Seal:
    """What the user block says about its file.

    Parameters
    ----------
    format_version : int
        Version of the file format.
    size : int
        Size of the whole file in bytes.
    user_block : int
        Size of the user block in bytes.
    extents : tuple of (int, int)
        Offset and size of every layer dataset, ascending.
    digest : str
        Hex digest of every byte outside the extents, these digits counted as zeros.
    """

    format_version: int
    size: int
    user_block: int
    extents: tuple[Extent, ...]
    digest: str = _UNSIGNED

    def text(self) -> bytes:
        """Give the user block, padded with zeros."""
        return (MAGIC + json.dumps(vars(self)).encode() + b"\n").ljust(self.user_block, b"\0")


def is_cache(path: Path) -> bool:
    """Whether a file begins like a cache, or like any HDF5 file; it may be damaged."""
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError:
        return False
    return start == MAGIC or _is_hdf5(start)


def user_block_size(n_layers: int) -> int:
    """Size of a user block that holds the seal of ``n_layers`` layers, in bytes.

    Examples
    --------
    >>> user_block_size(8), user_block_size(200)
    (4096, 16384)
    """
    needed = 512 + 48 * n_layers
    return max(4096, 1 << (needed - 1).bit_length())


def seal(path: Path, extents: Iterable[Extent], user_block: int) -> None:
    """Seal a finished file.

    Parameters
    ----------
    path : Path
        An HDF5 file with a user block.
    extents : iterable of (int, int)
        Offset and size of every layer dataset; empty ones are left out.
    user_block : int
        Size of the user block in bytes.
    """
    with path.open("r+b") as file:
        sealed = tuple(sorted(extent for extent in extents if extent[1]))
        unsigned = Seal(FORMAT_VERSION, os.fstat(file.fileno()).st_size, user_block, sealed)
        file.write(unsigned.text())
        signed = Seal(**{**vars(unsigned), "digest": _digest(file, unsigned)})
        file.seek(0)
        file.write(signed.text())


def check_seal(file: BinaryIO) -> Seal:
    """Check size and digest of a cache by plain reads.

    Parameters
    ----------
    file : binary file
        Open for reading; its ``name`` is used in messages.

    Raises
    ------
    CacheError
        When the file is no cache of ours, or of a newer format.
    CacheDamagedError
        When it is cut short, has grown, or bytes outside the layers have changed.
    """
    found = _read(file)
    size = os.fstat(file.fileno()).st_size
    if size != found.size:
        what = "is cut short" if size < found.size else f"has grown{_OTHERS}"
        raise _damaged(file, f"{what}: it has {size:,} bytes and was written with {found.size:,}")
    if _digest(file, found) != found.digest:
        raise _damaged(
            file,
            f"has changed since it was written{_OTHERS}: its metadata, ids or targets are not "
            "those that were sealed",
        )
    return found


def _read(file: BinaryIO) -> Seal:
    file.seek(0)
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        kind = "an HDF5 file, but not a cache of ours" if _is_hdf5(magic) else "not a cache"
        raise CacheError(
            f"{file.name} is {kind}: it lacks the seal that `pipeline embed` writes. "
            "Give a cache made by it, or another name for a new one."
        )
    try:
        value = json.loads(file.readline(_LONGEST_SEAL))
        version = int(value["format_version"])
        if version > FORMAT_VERSION:
            raise CacheError(
                f"{file.name} is a cache of format {version}; this program reads format "
                f"{FORMAT_VERSION}. Upgrade transfer-pipeline, or embed into another file."
            )
        extents = tuple((int(offset), int(size)) for offset, size in value["extents"])
        size, block = int(value["size"]), int(value["user_block"])
        digest = bytes.fromhex(value["digest"]).hex()
        found = Seal(version, size, block, extents, digest)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        raise _damaged(file, "has a seal that cannot be read") from None
    edges = [0, *(edge for start, length in extents for edge in (start, start + length)), size]
    if not 0 < block <= _LONGEST_SEAL or edges != sorted(edges):  # inside the file, and apart
        raise _damaged(file, "has a seal that cannot be read")
    return found


def _digest(file: BinaryIO, seal: Seal) -> str:
    """Digest every byte outside the extents, the signature counted as zeros."""
    digest = hashlib.blake2b(digest_size=DIGEST_SIZE)
    file.seek(0)
    digest.update(file.read(seal.user_block).replace(seal.digest.encode(), _UNSIGNED.encode(), 1))
    for start, end in _gaps(seal):
        file.seek(start)
        while start < end and (piece := file.read(min(_PIECE, end - start))):
            digest.update(piece)
            start += len(piece)
    return digest.hexdigest()


def _gaps(seal: Seal) -> Iterator[tuple[int, int]]:
    """Find the byte ranges between the extents, behind the user block."""
    start = seal.user_block
    for offset, size in seal.extents:
        yield start, offset
        start = max(start, offset + size)
    yield start, seal.size


def _is_hdf5(start: bytes) -> bool:
    return start.startswith(_HDF5_MAGIC)


def _damaged(file: BinaryIO, what: str) -> CacheDamagedError:
    return CacheDamagedError(
        f"{file.name} {what}. Put back a copy of it, or remove it and embed again."
    )
