"""Blocks: every 4,096 rows of a layer have a checksum of their own."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK_ROWS", "BlockGuard", "block_checksum", "n_blocks"]

BLOCK_ROWS = 4096


def n_blocks(n_rows: int) -> int:
    """Count the blocks that hold ``n_rows`` rows."""
    return -(-n_rows // BLOCK_ROWS)


def block_checksum(rows: NDArray[Any]) -> int:
    """First 8 bytes, little endian, of blake2b over the bytes of a block.

    Parameters
    ----------
    rows : ndarray, shape (at most 4096, width)
        C-contiguous, as stored.
    """
    content = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
    return int.from_bytes(hashlib.blake2b(content.data).digest()[:8], "little")


class BlockGuard:
    """Checks the blocks of one layer, each once while the file is open.

    Parameters
    ----------
    values : ndarray, shape (n, width)
        The layer as stored.
    checksums : ndarray of uint64, shape (k,)
        One a block.
    """

    def __init__(self, values: NDArray[Any], checksums: NDArray[np.uint64]) -> None:
        self.values, self.checksums = values, checksums
        self._sound = np.zeros(len(checksums), dtype=bool)

    def damaged(self, blocks: NDArray[np.integer[Any]]) -> list[range]:
        """List the row ranges of those ``blocks`` whose bytes are not those that were written."""
        for block in blocks[~self._sound[blocks]]:
            rows = self.values[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS]
            self._sound[block] = block_checksum(rows) == int(self.checksums[block])
        return [self._rows(int(block)) for block in blocks[~self._sound[blocks]]]

    def _rows(self, block: int) -> range:
        return range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(self.values)))
