"""What a boundary cache holds, but for its values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

__all__ = ["BoundaryContents"]


@dataclass(frozen=True, eq=False)
class BoundaryContents:
    """What a boundary cache holds, but for its values.

    Parameters
    ----------
    key : str
        What the values were made of: weights, pictures, views, and how.
    ids : tuple of str, length n
        Names of the rows.
    digests : uint8 array of shape (n, 16)
        Digest of the content of every row.
    block : str
        The first trained block.
    shape : tuple of int
        Shape of what enters it, without the batch.
    layers : dict of str to int
        Width of every layer below it, by full name, bottom to top.
    views : int
        How many views there are of every row; view 0 is the clean one.
    """

    key: str
    ids: tuple[str, ...]
    digests: NDArray[np.uint8]
    block: str
    shape: tuple[int, ...]
    layers: dict[str, int]
    views: int

    def datasets(self, view: int) -> dict[str, tuple[int, ...]]:
        """Shape of a row in every dataset of a view: the activations, then the layers."""
        layers = {f"layers/{view}/{name}": (width,) for name, width in self.layers.items()}
        return {f"boundary/{quote(self.block, safe='')}/{view}": self.shape, **layers}

    def rows(self, view: int, rows: Sequence[int] | NDArray[np.integer]) -> NDArray[np.intp]:
        """Give rows as an array, once they and the view are known to exist."""
        chosen = np.asarray(rows, dtype=np.intp)
        if not 0 <= view < self.views:
            raise IndexError(f"there is no view {view} among {self.views}. Count views from 0.")
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(self.ids):
            wrong = chosen[(chosen < 0) | (chosen >= len(self.ids))][0]
            raise IndexError(f"there is no row {wrong} among {len(self.ids)}. Count rows from 0.")
        return chosen
