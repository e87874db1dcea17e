"""Spectrum: a ridge problem decomposed once, solved for every strength, every row left out.

With centred rows ``X = U S V'`` the weights for the strength ``a`` are ``V (S^2 + a)^-1 S U'Y``.
A fit without row ``i`` predicts ``y_i - e_i / (1 - h_i)`` for it, ``e`` being the residual and
``h_i`` the row's own leverage; a group of rows leaves together through its block of the hat
matrix, or, where it has more rows than there are features, by taking its moments off (Allen,
1974; Hastie, Tibshirani and Friedman, 2009, section 7.10).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import solve

from pipeline.heads.moments import CHUNK_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Spectrum"]

_LEAST = 1e-6
"""Of ``1 - h``: a row that alone holds a direction says nothing of it when it is gone."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of a ridge problem, and the way from columns to its eigenvectors.

    Parameters
    ----------
    columns : slice or int array of shape (n_columns,)
        Columns of ``X`` that the problem is about.
    values : array of shape (rank,)
        Eigenvalues of ``X'WX`` of the centred, mapped rows.
    basis : array of shape (n_columns, rank)
        Columns times this are coordinates along the eigenvectors.
    projected : array of shape (rank, n_outputs)
        ``X'WY`` in these coordinates.
    x_mean : array of shape (n_columns,)
    y_mean : array of shape (n_outputs,)
    total : float
        Sum of the weights of all rows.
    """

    columns: Any
    values: NDArray[np.float64]
    basis: NDArray[np.float64]
    projected: NDArray[np.float64]
    x_mean: NDArray[np.float64]
    y_mean: NDArray[np.float64]
    total: float

    def coef(self, alpha: float) -> NDArray[np.float64]:
        """Weights of the columns: array of shape (n_columns, n_outputs)."""
        return self.basis @ (self.projected / (self.values + alpha)[:, None])

    def intercept(self, coef: NDArray[np.float64]) -> NDArray[np.float64]:
        """Intercept that belongs to some weights: array of shape (n_outputs,)."""
        return self.y_mean - self.x_mean @ coef

    def coordinates(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        """Turn rows into the eigenvectors: array of shape (n_samples, rank), in X's type."""
        turned = np.empty((len(X), len(self.values)), X.dtype)
        mean, basis = self.x_mean.astype(X.dtype), self.basis.astype(X.dtype)
        for rows in _chunks(len(X)):
            turned[rows] = (X[rows][:, self.columns] - mean) @ basis
        return turned

    def left_out(
        self,
        Z: NDArray[np.floating],
        Y: NDArray[np.floating],
        weight: NDArray[np.float64],
        alphas: NDArray[np.float64],
        families: Sequence[NDArray[np.int64]],
    ) -> Iterator[NDArray[np.floating]]:
        """Predict every row by a fit without it, or without its family.

        Parameters
        ----------
        Z : array of shape (n_samples, rank)
            Coordinates of rows that are among those of the problem.
        Y : array of shape (n_samples, n_outputs)
        weight : array of shape (n_samples,)
        alphas : array of shape (n_alphas,)
        families : sequence of int arrays
            Rows that leave together; all others leave alone.

        Yields
        ------
        array of shape (n_samples, n_outputs)
            For one strength after the other, in the wider type of ``Z`` and ``Y``.
        """
        leverage = weight[:, None] * (self._squares(Z, alphas) + 1 / self.total)
        precision = np.result_type(Y, Z)
        times = (1 / np.maximum(1 - leverage, _LEAST)).astype(precision)
        centred = (Y - self.y_mean).astype(precision)
        for place, alpha in enumerate(alphas):
            weights = (self.projected / (self.values + alpha)[:, None]).astype(Z.dtype)
            residual = centred - Z @ weights
            gone = residual * times[:, place, None]
            for family in families:
                gone[family] = self._gone(Z[family], residual[family], weight[family], alpha)
            yield Y - gone

    def _squares(self, Z: NDArray[np.floating], alphas: NDArray[np.float64]) -> NDArray[np.float64]:
        """``z (S^2 + a)^-1 z'`` of every row for every strength."""
        inverse = (1 / (self.values[:, None] + alphas)).astype(Z.dtype)
        parts = [Z[rows] ** 2 @ inverse for rows in _chunks(len(Z))]
        return np.concatenate(parts).astype(np.float64)

    def _gone(
        self,
        Z: NDArray[np.floating],
        residual: NDArray[np.floating],
        weight: NDArray[np.float64],
        alpha: float,
    ) -> NDArray[np.float64]:
        """Turn residuals of a family into those of a fit without it, on the cheaper side."""
        rows = np.column_stack([Z, np.ones(len(Z))]).astype(np.float64)
        weighed = rows * weight[:, None]
        penalised = np.append(self.values + alpha, self.total)
        if len(rows) <= rows.shape[1]:
            hat = rows @ (weighed / penalised).T
            return np.asarray(solve(np.eye(len(rows)) - hat, residual))
        rest = np.diag(penalised) - rows.T @ weighed
        return np.asarray(residual + rows @ solve(rest, weighed.T @ residual, assume_a="sym"))


def _chunks(n_samples: int) -> list[slice]:
    return [slice(start, start + CHUNK_ROWS) for start in range(0, max(n_samples, 1), CHUNK_ROWS)]
