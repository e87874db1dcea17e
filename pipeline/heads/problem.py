"""Problem: the rows that a head is fitted on, layers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UnknownNameError
from pipeline.samples import Target

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


def layers_used(fusion: str, layers: Sequence[str]) -> list[str]:
    """Name the layers that a fusion looks at, bottom to top."""
    if fusion == "last":
        return [layers[-1]]
    if fusion.startswith("single:"):
        return [resolve_layer(fusion.removeprefix("single:"), layers)]
    return list(layers)


def resolve_layer(name: str, layers: Sequence[str]) -> str:
    """Find a layer by its full name, or by its tap alone where only one backbone has it."""
    matches = [layer for layer in layers if layer == name or layer.endswith(f"/{name}")]
    if len(matches) != 1:
        raise UnknownNameError("layer", name, layers)
    return matches[0]
