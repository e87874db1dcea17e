"""Stream: what is kept of rows that come bit by bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from pipeline.heads.looking import MOST_ROWS, Prepared
from pipeline.heads.moments import Moments
from pipeline.heads.ridge_rows import RidgeRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Stream"]


@dataclass(eq=False)
class Stream:
    """Moments of all rows so far, and a fair sample of the rows themselves.

    Parameters
    ----------
    moments : Moments
    X, Y, weight : arrays of n_kept rows
    lot : array of shape (n_kept,)
        Drawn for every row; the rows of the smallest are kept.
    random : Generator
    """

    moments: Moments
    X: NDArray[np.floating]
    Y: NDArray[np.floating]
    weight: NDArray[np.float64]
    lot: NDArray[np.float64]
    random: np.random.Generator

    @classmethod
    def starting(cls, X: NDArray[np.floating], Y: NDArray[np.floating], seed: int) -> Self:
        """Start with no rows; these only say where they lie."""
        moments = Moments.starting_at(X.mean(axis=0, dtype=np.float64), Y.mean(axis=0))
        none = np.empty(0)
        return cls(moments, X[:0], Y[:0], none, none, np.random.default_rng(seed))

    def add(
        self, X: NDArray[np.floating], Y: NDArray[np.floating], weight: NDArray[np.float64]
    ) -> None:
        """Add rows."""
        self.moments.add(X, Y, weight)
        lot = np.concatenate([self.lot, self.random.random(len(X))])
        kept = np.sort(np.argsort(lot, kind="stable")[:MOST_ROWS])
        self.lot = lot[kept]
        self.X = np.concatenate([self.X, X])[kept]
        self.Y = np.concatenate([self.Y, Y])[kept]
        self.weight = np.concatenate([self.weight, weight])[kept]

    def prepared(self) -> Prepared:
        """Give the rows as they would come from one pass over all of them."""
        every = np.arange(len(self.X))
        if len(self.X) == self.moments.n_samples < 2 * self.X.shape[1]:
            rows = RidgeRows(self.X.astype(np.float64), self.Y, self.weight)
            return Prepared(rows, every)
        return Prepared(RidgeRows(self.X, self.Y, self.weight, (), self.moments), every)
