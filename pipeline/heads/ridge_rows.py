"""RidgeRows: what every ridge of every fusion is fitted on, rows or their moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from pipeline.heads.linear_map import LinearMap
from pipeline.heads.moments import Moments
from pipeline.heads.sharing import Kept
from pipeline.heads.spectrum import Spectrum

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RidgeRows"]


@dataclass(frozen=True, eq=False)
class RidgeRows:
    """Rows to fit and to look at.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        Rows that are looked at when they are left out.
    Y : array of shape (n_samples, n_outputs)
    weight : array of shape (n_samples,)
    families : sequence of int arrays
        Rows that leave together; all others leave alone.
    moments : Moments, optional
        Of all rows that are fitted, those above among them; None where ``X`` holds them all
        and has too few for moments to be the cheaper way.
    kept : Kept
        Decompositions that other targets of the same rows have made, or will ask for.
    """

    X: NDArray[np.floating]
    Y: NDArray[np.floating]
    weight: NDArray[np.float64]
    families: Sequence[NDArray[np.int64]] = ()
    moments: Moments | None = None
    kept: Kept = field(default_factory=lambda: Kept(keeping=False))

    @cached_property
    def n_samples(self) -> int:
        """Rows that are fitted."""
        return len(self.X) if self.moments is None else self.moments.n_samples

    @cached_property
    def total(self) -> float:
        """Sum of the weights."""
        return float(self.weight.sum()) if self.moments is None else self.moments.weight

    @cached_property
    def x_mean(self) -> NDArray[np.float64]:
        """Weighted mean of every column."""
        return self.weight @ self.X / self.total if self.moments is None else self.moments.x_mean

    @cached_property
    def y_mean(self) -> NDArray[np.float64]:
        """Weighted mean of every output."""
        return self.weight @ self.Y / self.total if self.moments is None else self.moments.y_mean

    @cached_property
    def x_variance(self) -> NDArray[np.float64]:
        """Weighted variance of every column, 0 where only rounding moves it."""
        if self.moments is None:
            variance = self.weight @ (self.X - self.x_mean) ** 2 / self.total
        else:
            variance = self.moments.x_variance
        noise = (10 * np.finfo(self.X.dtype).eps * np.abs(self.x_mean)) ** 2
        return np.where(variance > noise, variance, 0)

    @cached_property
    def yy(self) -> float:
        """Weighted sum of the squares of the centred outputs."""
        if self.moments is not None:
            return self.moments.yy_about_mean
        return float(self.weight @ ((self.Y - self.y_mean) ** 2).sum(axis=1))

    @cached_property
    def outputs(self) -> NDArray[np.floating]:
        """Centred outputs times the root of the weight; for rows without moments."""
        return (self.Y - self.y_mean) * np.sqrt(self.weight)[:, None]

    @cached_property
    def groups(self) -> NDArray[np.int64] | None:
        """Number of the family of each row that is looked at; None where all stand alone."""
        if not len(self.families):
            return None
        numbers = np.arange(len(self.X))
        for family in self.families:
            numbers[family] = family[0]
        return numbers

    def features(self, fusion: LinearMap) -> NDArray[np.float64]:
        """Centred, mapped rows times the root of the weight; for rows without moments."""
        mapped = fusion.of_rows(self.X - self.x_mean) * np.sqrt(self.weight)[:, None]
        return np.asarray(mapped, np.float64)

    def is_wide(self, fusion: LinearMap) -> bool:
        """Whether the rows are fewer than the features, and so the place to solve in."""
        return self.moments is None and len(self.X) < fusion.width

    def gram(self, fusion: LinearMap) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``X'WX`` and ``X'WY`` of centred, mapped rows."""
        if self.moments is not None:
            return fusion.of_gram(self.moments), fusion.of_cross(self.moments)
        features = self.features(fusion)
        return features.T @ features, features.T @ self.outputs

    def spectrum(self, fusion: LinearMap) -> Spectrum:
        """Decompose, in the space of the features or of the rows, whichever is smaller."""
        name = fusion.name and ("basis", fusion.name)
        values, basis, left = self.kept.get(name, lambda: self._decomposed(fusion))
        if self.is_wide(fusion):
            projected = np.sqrt(values)[:, None] * (left.T @ self.outputs)
        else:
            projected = left.T @ self._cross(fusion)
        place = fusion.columns
        means = (self.x_mean[place], self.y_mean)
        return Spectrum(place, values, basis, projected, *means, self.total)

    def _decomposed(
        self, fusion: LinearMap
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Give eigenvalues, the way from columns to eigenvectors, and these as they are solved."""
        if self.is_wide(fusion):
            features = self.features(fusion)
            values, left = _positive(*eigh(features @ features.T, driver="evd"))
            return values, fusion.back(features.T @ (left / np.sqrt(values))), left
        values, own = _positive(*eigh(self.gram(fusion)[0], driver="evd", overwrite_a=True))
        return values, fusion.back(own), own

    def _cross(self, fusion: LinearMap) -> NDArray[np.float64]:
        if self.moments is not None:
            return fusion.of_cross(self.moments)
        return np.asarray(self.features(fusion).T @ self.outputs)

    def coordinates(self, fusion: LinearMap, spectrum: Spectrum) -> NDArray[np.floating]:
        """Turn the rows that are looked at into the eigenvectors."""
        name = fusion.name and ("rows", fusion.name)
        return self.kept.get(name, lambda: spectrum.coordinates(self.X))

    def solve(self, fusion: LinearMap, alpha: float) -> NDArray[np.float64]:
        """Weights of the columns for one strength: array of shape (n_columns, n_outputs)."""
        if self.is_wide(fusion):
            features = self.features(fusion)
            kernel = _penalised(features @ features.T, alpha)
            return fusion.back(features.T @ cho_solve(cho_factor(kernel), self.outputs))
        gram, cross = self.gram(fusion)
        return fusion.back(cho_solve(cho_factor(_penalised(gram, alpha)), cross))

    def without(self, rows: NDArray[np.int64]) -> RidgeRows:
        """Leave rows out that are looked at."""
        kept = np.setdiff1d(np.arange(len(self.X)), rows)
        moments = self.moments
        if moments is not None:
            gone = Moments.starting_at(moments.x_reference, moments.y_reference)
            moments = moments - gone.add(self.X[rows], self.Y[rows], self.weight[rows])
        return replace(
            self, X=self.X[kept], Y=self.Y[kept], weight=self.weight[kept], families=(),
            moments=moments, kept=Kept(keeping=False),
        )  # fmt: skip


def _penalised(gram: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    gram.flat[:: len(gram) + 1] += alpha
    return gram


def _positive(
    values: NDArray[np.float64], vectors: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Keep the eigenvectors that more than rounding lies along; none of constant columns."""
    kept = values > max(values[-1], 0) * len(values) * np.finfo(np.float64).eps
    return values[kept], vectors[:, kept]
