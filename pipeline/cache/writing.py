"""Writing: one finished cache, streamed in windows of one block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.blocks import BLOCK_ROWS, block_checksum, n_blocks
from pipeline.cache.contents import Contents, dtype_of
from pipeline.cache.disk import write_whole
from pipeline.cache.seal import seal, user_block_size
from pipeline.durable import remove_temporaries

if TYPE_CHECKING:
    from pipeline.cache.layout import Layout

__all__ = ["write_cache"]

Values = Callable[[str, slice], NDArray[Any]]


def write_cache(path: Path, contents: Contents, values: Values) -> None:
    """Write a cache; it stands whole or not at all. The caller holds the lock.

    Parameters
    ----------
    path : Path
        A file that stands there is replaced by one rename; its readers keep it.
    contents : Contents
        Everything but the vectors.
    values : callable
        Gives the rows of a window as ``values(layer, window)``, an array of shape
        (rows, width) in the type of the store. Asked for every layer of a window in turn.

    Raises
    ------
    CacheError
        When the disk is full or the folder cannot be written.
    """
    from pipeline.cache.layout import create_layout  # loads h5py

    remove_temporaries(path)
    with write_whole(path) as temporary:
        with temporary.open("wb") as file:
            layout = create_layout(file, contents)
            checksums = _write_layers(file, layout, values)
            for layer, (offset, _) in layout.checksum_extents.items():
                file.seek(offset)
                file.write(checksums[layer].tobytes())
        seal(temporary, layout.extents.values(), user_block_size(len(contents.layers)))


def _write_layers(file: BinaryIO, layout: Layout, values: Values) -> dict[str, NDArray[np.uint64]]:
    contents, n_rows = layout.contents, len(layout.contents.ids)
    checksums = {
        layer: np.zeros(n_blocks(n_rows), dtype=np.dtype("<u8")) for layer in contents.layers
    }
    for block in range(n_blocks(n_rows)):
        window = slice(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, n_rows))
        for layer, width in contents.layers.items():
            rows = np.ascontiguousarray(values(layer, window))
            shape, dtype = (window.stop - window.start, width), dtype_of(layer, contents.specs)
            if rows.shape != shape or rows.dtype != dtype:
                raise ValueError(
                    f"layer {layer} is {rows.dtype} of shape {rows.shape}, not {dtype} of {shape}."
                )
            checksums[layer][block] = block_checksum(rows)
            file.seek(layout.extents[layer][0] + window.start * width * dtype.itemsize)
            file.write(rows.reshape(-1).view(np.uint8).data)
    return checksums
