"""Problem: the rows that a head is fitted on, layers side by side."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import OptionError
from pipeline.fusion import find_layer, slices_of
from pipeline.heads.looking import MOST_ROWS, Passes, parted_families
from pipeline.heads.sharing import Sharing
from pipeline.memory import shown_bytes
from pipeline.samples import Target, clean_column

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Problem", "layers_used"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows that a head is fitted on.

    Parameters
    ----------
    X : float32 array of shape (n_samples, n_features), or None
        Layers side by side; None where they come in pieces.
    layer_slices : dict of str to slice
        Columns of each layer, bottom to top.
    target : Target
        A label for every row.
    groups : sequence, optional
        Rows of one group never stand on both sides of a fold.
    digests : sequence of bytes, optional
        Rows of equal content never do either.
    sample_weight : array of shape (n_samples,), optional
    pieces : callable, optional
        Starts a new pass over the rows of ``X``, which need not be in memory at once.
    most_rows : int
        Rows of such a problem that are kept to be left out.
    sharing : Sharing, optional
        With problems of other targets on the same rows and layers.
    """

    X: NDArray[np.float32] | None
    layer_slices: Mapping[str, slice]
    target: Target
    groups: Sequence[Any] | None = None
    digests: Sequence[bytes] | None = None
    sample_weight: NDArray[np.floating] | None = None
    pieces: Passes | None = None
    most_rows: int = MOST_ROWS
    sharing: Sharing | None = None

    @property
    def n_features(self) -> int:
        """Columns of ``X``."""
        return sum(own.stop - own.start for own in self.layer_slices.values())

    @property
    def matrix(self) -> NDArray[np.float32]:
        """``X``, for what needs all rows at once.

        Raises
        ------
        OptionError
            When they do not fit into memory.
        """
        if self.X is None:
            needed = shown_bytes(12 * len(self.target) * self.n_features)
            raise OptionError(
                f"this head needs all {len(self.target)} rows in memory, about {needed}, which is "
                "more than the limit. Give more (--memory), fewer layers (--layers), or a head "
                "that takes them in pieces: auto, ridge or layer_ridge."
            )
        return self.X

    def passes(self) -> Iterator[NDArray[np.floating]]:
        """Go over the rows of ``X``, in one piece or several."""
        return iter([self.matrix]) if self.pieces is None else self.pieces()

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
            X=self.matrix[rows],
            target=self.target.subset(rows),
            groups=None if self.groups is None else [self.groups[row] for row in rows],
            digests=None if self.digests is None else [self.digests[row] for row in rows],
            sample_weight=None if self.sample_weight is None else self.sample_weight[rows],
            sharing=None,
        )

    def restricted(self, layers: Sequence[str]) -> Problem:
        """Keep these layers."""
        if list(layers) == list(self.layer_slices):
            return self
        own = [self.layer_slices[layer] for layer in layers]
        slices = slices_of(
            {layer: one.stop - one.start for layer, one in zip(layers, own, strict=True)}
        )
        if self.X is None:
            return replace(self, pieces=lambda: (_side_by_side(X, own) for X in self.passes()),
                           layer_slices=slices, sharing=None)  # fmt: skip
        return replace(self, X=_side_by_side(self.X, own), layer_slices=slices, sharing=None)

    def leave_together(self) -> list[int] | None:
        """Families as `search_fusions` takes them: none holds a whole class, or every row.

        The rows of one that does are left out one at a time, and this is said.
        """
        families = self.families
        if families is not None and len(set(families)) == 1:
            _log.info(
                "all rows are of one group: they are left out one at a time, so the figures of the "
                "comparison flatter what is chosen"
            )
            return None
        if families is None or self.target.kind != "class":
            return families
        own, alone = parted_families(self.target.encode(), families)
        for code in alone:
            _log.info(
                "class %s lies in one group alone, or is copies of one input: its rows are left "
                "out one at a time, so the figures of the comparison flatter it",
                self.target.classes[code],
            )
        return own

    @property
    def y(self) -> NDArray[Any]:
        """What scikit-learn takes as ``y``: labels, numbers, or 0/1 indicators."""
        if self.target.kind == "multilabel":
            return self.target.indicator().astype(np.int64)
        if self.target.kind == "number":
            return self.target.values
        return self.target.labels[self.target.encode()]


def _side_by_side(X: NDArray[np.floating], columns: Sequence[slice]) -> NDArray[np.floating]:
    return np.concatenate([X[:, own] for own in columns], axis=1)


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
