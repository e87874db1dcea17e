"""Boundary layout: where everything stands in the HDF5 file of a boundary cache.

As in a cache, HDF5 writes the structure alone, in memory; the values are plain bytes at
their offsets, under the same seal.
"""

from __future__ import annotations

import json
from typing import BinaryIO

import h5py
import numpy as np

from pipeline.cache.boundary_contents import BoundaryContents
from pipeline.cache.datasets import (
    MISREADINGS,
    extent_of,
    reserve,
    texts_of,
    write_texts,
)
from pipeline.cache.seal import Extent, user_block_size
from pipeline.cache.sheet import Sheet
from pipeline.digest import DIGEST_SIZE
from pipeline.errors import CacheDamagedError

__all__ = ["create_boundary", "read_boundary"]

BOUNDARY_VERSION = 1
_FLOAT16 = np.dtype("<f2")


def create_boundary(file: BinaryIO, contents: BoundaryContents) -> dict[str, Extent]:
    """Write a file with room for the values, and say where in it every dataset stands."""
    sheet, n = Sheet(), len(contents.ids)
    shapes = _shapes(contents)
    with h5py.File(
        sheet,
        "w",
        libver=("v108", "v110"),
        userblock_size=user_block_size(len(shapes)),
        alignment_threshold=4096,
        alignment_interval=64,
    ) as root:
        root.attrs["format_version"] = BOUNDARY_VERSION
        root.attrs["key"] = contents.key
        root.attrs["views"] = contents.views
        root.attrs["block"] = contents.block
        root.attrs["shape"] = np.array(contents.shape, dtype="<i8")
        root.attrs["layers"] = json.dumps(contents.layers)
        extents = {
            name: reserve(root, name, (n, *shape), _FLOAT16) for name, shape in shapes.items()
        }
        write_texts(root, "ids", contents.ids)
        root.create_dataset("digests", data=contents.digests)
    sheet.copy_to(file)
    return extents


def read_boundary(file: BinaryIO) -> tuple[BoundaryContents, dict[str, Extent]]:
    """Read what a file holds and where, after its seal has been checked.

    Raises
    ------
    CacheDamagedError
        When the structure is not one that this version writes.
    """
    try:
        with h5py.File(file, "r") as root:
            return _read(root)
    except MISREADINGS as error:
        raise CacheDamagedError(
            f"{file.name} is no boundary cache of this version ({error}). Make it anew."
        ) from None


def _read(root: h5py.File) -> tuple[BoundaryContents, dict[str, Extent]]:
    version = int(root.attrs["format_version"])
    if version != BOUNDARY_VERSION:
        raise ValueError(f"it is of format {version}")
    contents = BoundaryContents(
        key=str(root.attrs["key"]),
        ids=tuple(texts_of(root["ids"])),
        digests=root["digests"][()],
        block=str(root.attrs["block"]),
        shape=tuple(root.attrs["shape"].tolist()),
        layers={str(name): int(width) for name, width in json.loads(root.attrs["layers"]).items()},
        views=int(root.attrs["views"]),
    )
    n = len(contents.ids)
    extent_of(root["digests"], (n, DIGEST_SIZE), np.dtype(np.uint8))
    extents = {
        name: extent_of(root[name], (n, *shape), _FLOAT16)
        for name, shape in _shapes(contents).items()
    }
    return contents, extents


def _shapes(contents: BoundaryContents) -> dict[str, tuple[int, ...]]:
    """Shape of a row in every dataset of every view."""
    views = [contents.datasets(view) for view in range(contents.views)]
    return {name: shape for view in views for name, shape in view.items()}
