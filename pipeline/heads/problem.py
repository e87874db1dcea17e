"""Problem: the rows that a head is fitted on, layers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.fusion import find_layer
from pipeline.samples import Target, clean_column

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Problem", "layers_used"]


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows that a head is fitted on.

    Parameters
    ----------
    X : float32 array of shape (n_samples, n_features)
        Layers side by side.
    layer_slices : dict of str to slice
        Columns of each layer, bottom to top.
    target : Target
        A label for every row.
    groups : sequence, optional
        Rows of one group never stand on both sides of a fold.
    digests : sequence of bytes, optional
        Rows of equal content never do either.
    sample_weight : array of shape (n_samples,), optional
    """

    X: NDArray[np.float32]
    layer_slices: Mapping[str, slice]
    target: Target
    groups: Sequence[Any] | None = None
    digests: Sequence[bytes] | None = None
    sample_weight: NDArray[np.floating] | None = None

    @cached_property
    def families(self) -> list[int] | None:
        """Number of the family of each row, of equal content or of one group, however chained.

        None where every row stands alone.
        """
        keys = [list(map(bytes, self.digests))] if self.digests is not None else []
        if self.groups is not None:
            keys.append(list(clean_column(self.groups)))
        places: dict[tuple[Any, Any], int] = {("row", row): row for row in range(len(self.target))}
        pairs = [
            (row, places.setdefault((column, key), len(places)))
            for column, cells in enumerate(keys)
            for row, key in enumerate(cells)
            if key is not None
        ]
        family = _connected(pairs, len(places))[: len(self.target)]
        return family if len(set(family)) < len(family) else None

    def subset(self, rows: NDArray[np.int64]) -> Problem:
        """Keep these rows."""
        return replace(
            self,
            X=self.X[rows],
            target=self.target.subset(rows),
            groups=None if self.groups is None else [self.groups[row] for row in rows],
            digests=None if self.digests is None else [self.digests[row] for row in rows],
            sample_weight=None if self.sample_weight is None else self.sample_weight[rows],
        )

    def restricted(self, layers: Sequence[str]) -> Problem:
        """Keep these layers."""
        if list(layers) == list(self.layer_slices):
            return self
        columns, slices, start = [], {}, 0
        for layer in layers:
            own = self.layer_slices[layer]
            columns.append(self.X[:, own])
            slices[layer] = slice(start, start + own.stop - own.start)
            start = slices[layer].stop
        return replace(self, X=np.concatenate(columns, axis=1), layer_slices=slices)

    @property
    def y(self) -> NDArray[Any]:
        """What scikit-learn takes as ``y``: labels, numbers, or 0/1 indicators."""
        if self.target.kind == "multilabel":
            return self.target.indicator().astype(np.int64)
        if self.target.kind == "number":
            return self.target.values
        return self.target.labels[self.target.encode()]


def _connected(pairs: Sequence[tuple[int, int]], size: int) -> list[int]:
    """Give each node of a graph the number of its connected part."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs), bool), (ends[0], ends[1])), shape=(size, size))
    numbers: list[int] = connected_components(graph, directed=False)[1].tolist()
    return numbers


def layers_used(fusion: str, layers: Sequence[str]) -> list[str]:
    """Name the layers that a fusion looks at, bottom to top."""
    if fusion == "last":
        return [layers[-1]]
    if fusion.startswith("single:"):
        return [find_layer(fusion.removeprefix("single:"), layers)]
    return list(layers)
