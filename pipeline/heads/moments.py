"""Moments: weighted sums of rows, from which every linear head of every fusion follows.

One pass over the data gives ``X'WX``, ``X'WY`` and the sums. A linear map of the columns (a
subset of the layers, a scale, a weighted sum of them) maps the moments, so no fusion needs a
second pass; moments of disjoint rows add and subtract, so neither does a fold, a group or new
data (Engstrom and Jensen, 2024, arXiv 2401.13185).

Rows are shifted by a reference before they are multiplied. Chunks of float32 are multiplied in
float32 and added up in float64: unshifted, features of mean 1,000 and variance 1 would lose an
eighth of their covariance, shifted they lose 3e-6 of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CHUNK_ROWS", "Moments", "cuda_device"]

CHUNK_ROWS = 4096
"""Rows that are multiplied at once: float32 products of more would round visibly."""


@dataclass(eq=False)
class Moments:
    """Weighted sums over rows ``x - x_reference`` and outputs ``y - y_reference``.

    Parameters
    ----------
    x_reference : array of shape (n_features,)
    y_reference : array of shape (n_outputs,)
    n_samples : int
    weight : float
        Sum of the weights.
    x : array of shape (n_features,)
    y : array of shape (n_outputs,)
    gram : array of shape (n_features, n_features)
    cross : array of shape (n_features, n_outputs)
    yy : array of shape (n_outputs,)

    Examples
    --------
    >>> X, Y = np.arange(8.0).reshape(4, 2), np.eye(4)
    >>> every = Moments.starting_at(X[0], Y[0]).add(X, Y)
    >>> first = Moments.starting_at(X[0], Y[0]).add(X[:1], Y[:1])
    >>> (every - first).n_samples, every.x_mean.tolist(), every.x_variance.tolist()
    (3, [3.0, 4.0], [5.0, 5.0])
    """

    x_reference: NDArray[np.float64]
    y_reference: NDArray[np.float64]
    n_samples: int
    weight: float
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    gram: NDArray[np.float64]
    cross: NDArray[np.float64]
    yy: NDArray[np.float64]

    @classmethod
    def starting_at(cls, x_reference: Any, y_reference: Any) -> Self:
        """Give the moments of no rows; a reference near the mean keeps all digits.

        It is rounded to float32, so that rows of either type are shifted by the same.
        """
        x, y = np.array(x_reference, np.float64), np.array(y_reference, np.float64)
        with np.errstate(over="ignore"):
            rounded = x.astype(np.float32).astype(np.float64)
        x = np.where(np.isfinite(rounded), rounded, x)
        d, k = len(x), len(y)
        sums = (np.zeros(d), np.zeros(k), np.zeros((d, d)), np.zeros((d, k)), np.zeros(k))
        return cls(x, y, 0, 0.0, *sums)

    def of_features(self, y_reference: Any) -> Self:
        """Give a copy that knows nothing of the outputs yet: add theirs with ``outputs_only``."""
        y = np.array(y_reference, np.float64)
        sums = (np.zeros(len(y)), self.gram, np.zeros((len(self.x), len(y))), np.zeros(len(y)))
        return type(self)(self.x_reference, y, self.n_samples, self.weight, self.x, *sums)

    def add(
        self,
        X: Any,
        Y: Any,
        weight: Any = None,
        *,
        device: str | None = None,
        outputs_only: bool = False,
    ) -> Self:
        """Add rows.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        Y : array of shape (n_samples, n_outputs)
        weight : array of shape (n_samples,), optional
        device : str, optional
            Where torch multiplies, such as ``"cuda"``; None multiplies in numpy.
        outputs_only : bool
            The features of these rows are there already.
        """
        X = np.asarray(X)
        if X.dtype not in (np.float32, np.float64):
            X = X.astype(np.float32 if X.dtype == np.float16 else np.float64)
        Y = np.asarray(Y)
        for start in range(0, len(X), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            self._add(
                X[rows], Y[rows], None if weight is None else weight[rows], device, outputs_only
            )
        return self

    def _add(self, X: Any, Y: Any, weight: Any, device: str | None, outputs_only: bool) -> None:
        x = X - self.x_reference.astype(X.dtype)
        y = np.asarray(Y - self.y_reference, np.float64)
        w = np.ones(len(x)) if weight is None else np.asarray(weight, np.float64)
        if weight is not None:
            root = np.sqrt(w)[:, None]
            x, y = x * root.astype(x.dtype), y * root
        if not outputs_only:
            self.n_samples += len(x)
            self.weight += float(w.sum())
            self.x += np.sqrt(w) @ x
            self.gram += _gram(x, device)
        self.y += np.sqrt(w) @ y
        self.cross += x.T @ y.astype(x.dtype)
        self.yy += np.einsum("ij,ij->j", y, y)

    def __add__(self, other: Moments) -> Moments:
        """Add the moments of other rows."""
        return self._combined(other, 1)

    def __sub__(self, other: Moments) -> Moments:
        """Take off the moments of some of the rows."""
        return self._combined(other, -1)

    def _combined(self, other: Moments, sign: int) -> Moments:
        there = other.moved_to(self.x_reference, self.y_reference)
        names = ("n_samples", "weight", "x", "y", "gram", "cross", "yy")
        sums = (getattr(self, name) + sign * getattr(there, name) for name in names)
        return Moments(self.x_reference, self.y_reference, *sums)

    def moved_to(self, x_reference: Any, y_reference: Any) -> Moments:
        """Give the moments of the same rows about another reference."""
        a, b = self.x_reference - x_reference, self.y_reference - y_reference
        if not (a.any() or b.any()):
            return self
        return Moments(
            np.asarray(x_reference),
            np.asarray(y_reference),
            self.n_samples,
            self.weight,
            self.x + self.weight * a,
            self.y + self.weight * b,
            self.gram + np.outer(self.x, a) + np.outer(a, self.x + self.weight * a),
            self.cross + np.outer(self.x, b) + np.outer(a, self.y + self.weight * b),
            self.yy + 2 * b * self.y + self.weight * b**2,
        )

    @property
    def x_mean(self) -> NDArray[np.float64]:
        """Weighted mean of every feature."""
        return self.x_reference + self.x / self.weight

    @property
    def y_mean(self) -> NDArray[np.float64]:
        """Weighted mean of every output."""
        return self.y_reference + self.y / self.weight

    @property
    def x_variance(self) -> NDArray[np.float64]:
        """Weighted variance of every feature, with the sum of the weights below."""
        mean = self.x / self.weight
        return np.maximum(np.diag(self.gram) / self.weight - mean**2, 0)

    def gram_about_mean(self, columns: Sequence[int] | slice = slice(None)) -> NDArray[np.float64]:
        """``X'WX`` of centred rows, on some columns: array of shape (n_columns, n_columns)."""
        own = self.gram[columns][:, columns]
        return own - np.outer(self.x[columns], self.x[columns]) / self.weight

    def cross_about_mean(self, columns: Sequence[int] | slice = slice(None)) -> NDArray[np.float64]:
        """``X'WY`` of centred rows, on some columns: array of shape (n_columns, n_outputs)."""
        return self.cross[columns] - np.outer(self.x[columns], self.y) / self.weight

    @property
    def yy_about_mean(self) -> float:
        """Sum of the squares of the centred outputs."""
        return float(np.sum(self.yy - self.y**2 / self.weight))


def _gram(x: NDArray[Any], device: str | None) -> NDArray[np.float64]:
    """``x'x``; numpy sees the transposed twin and does half of the work."""
    if device is None:
        return np.asarray(x.T @ x, np.float64)
    import torch

    on_device = torch.from_numpy(x).to(device)
    product: NDArray[np.float64] = (on_device.T @ on_device).double().cpu().numpy()
    return product


def cuda_device() -> str | None:
    """Name the CUDA device that can multiply, or None; without a driver torch is not loaded."""
    if not Path("/proc/driver/nvidia/version").exists():
        return None
    import torch

    return "cuda" if torch.cuda.is_available() else None
