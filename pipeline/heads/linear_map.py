"""LinearMap: how the columns of ``X`` become the features that ridge is fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.heads.moments import Moments

__all__ = ["LinearMap"]


@dataclass(frozen=True, eq=False)
class LinearMap:
    """Some columns, each with its factor, and if need be a matrix after that.

    Every fusion is one: layers side by side are a factor a column, a weighted sum of layers is
    a matrix. So a fusion is fitted from the moments of the columns alone.

    Parameters
    ----------
    columns : slice or int array of shape (n_columns,)
    factors : array of shape (n_columns,)
    mix : array of shape (n_columns, width), optional
    name : str, optional
        Of a map that the labels have no say in: it is the same for every target of the rows.

    Examples
    --------
    >>> LinearMap(slice(0, 2), np.array([1.0, 3.0])).of_rows(np.ones((1, 4)))
    array([[1., 3.]])
    """

    columns: Any
    factors: NDArray[np.float64]
    mix: NDArray[np.float64] | None = None
    name: str | None = None

    @property
    def width(self) -> int:
        """Features that come out."""
        return len(self.factors) if self.mix is None else self.mix.shape[1]

    def of_rows(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        """Map rows of shape (n_samples, n_features)."""
        own = X[:, self.columns] * self.factors.astype(X.dtype)
        return own if self.mix is None else own @ self.mix.astype(X.dtype)

    def of_gram(self, moments: Moments) -> NDArray[np.float64]:
        """Map ``X'WX`` of centred rows: array of shape (width, width)."""
        own = self.factors[:, None] * moments.gram_about_mean(self.columns) * self.factors
        return own if self.mix is None else self.mix.T @ own @ self.mix

    def of_cross(self, moments: Moments) -> NDArray[np.float64]:
        """Map ``X'WY`` of centred rows: array of shape (width, n_outputs)."""
        own = self.factors[:, None] * moments.cross_about_mean(self.columns)
        return own if self.mix is None else self.mix.T @ own

    def back(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn weights of the features into weights of the columns: (n_columns, n_outputs)."""
        return self.factors[:, None] * (weights if self.mix is None else self.mix @ weights)
