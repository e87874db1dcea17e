"""Solving: the strength of a ridge by the rows left out, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve, lapack

from pipeline.errors import OptionError
from pipeline.heads.linear_map import LinearMap
from pipeline.heads.spectrum import Spectrum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.heads.judging import Judge, Verdict
    from pipeline.heads.ridge_rows import RidgeRows

__all__ = ["Fit", "Solution", "gcv", "solved"]

_POWERS = np.linspace(-5, 2, 20)
"""Of ten: the strengths to compare, times the mean eigenvalue."""


@dataclass(frozen=True, eq=False)
class Solution:
    """A ridge at its best strength.

    Parameters
    ----------
    fusion : LinearMap
    spectrum : Spectrum
    alpha : float
    scores : array of shape (n_looked_at, n_outputs)
        What each row gets from a fit without it, or without its family.
    verdict : Verdict
    """

    fusion: LinearMap
    spectrum: Spectrum
    alpha: float
    scores: NDArray[np.floating]
    verdict: Verdict


def solved(
    rows: RidgeRows, fusion: LinearMap, judge: Judge, alphas: Sequence[float] | None = None
) -> Solution:
    """Solve for all strengths, and keep the one whose left-out predictions lose least.

    Parameters
    ----------
    rows : RidgeRows
    fusion : LinearMap
    judge : Judge
        Of the rows that are looked at.
    alphas : sequence of float, optional
        Penalties to compare; 20 about the mean eigenvalue when not given.
    """
    spectrum = rows.spectrum(fusion)
    scale = spectrum.values.mean() if len(spectrum.values) else 1.0
    strengths = scale * 10**_POWERS if alphas is None else _given(alphas)
    if not judge.weight.any():  # nothing tells them apart: neither the weakest nor the strongest
        strengths = strengths[len(strengths) // 2 :][:1]
    coordinates = rows.coordinates(fusion, spectrum)
    best: Solution | None = None
    left_out = spectrum.left_out(coordinates, rows.Y, rows.weight, strengths, rows.families)
    for alpha, scores in zip(strengths.tolist(), left_out, strict=True):
        verdict = judge.verdict(scores)
        # nan, where no row can be judged, is never lower: the first stays, and any would do.
        if best is None or verdict.loss < best.verdict.loss:
            best = Solution(fusion, spectrum, alpha, scores, verdict)
    assert best is not None
    return best


def _given(alphas: Sequence[float]) -> NDArray[np.float64]:
    strengths = np.asarray(alphas, np.float64)
    if strengths.ndim != 1 or not len(strengths) or not (strengths >= 0).all():
        raise OptionError(
            f"alphas is {alphas!r}, but must hold one strength or more, none of them negative."
        )
    return strengths


def gcv(rows: RidgeRows, fusion: LinearMap, alpha: float) -> float:
    """Generalised cross-validation (Golub, Heath and Wahba, 1979), from moments alone."""
    if rows.is_wide(fusion):
        features = rows.features(fusion)
        gram, right = features @ features.T, rows.outputs
    else:
        gram, right = rows.gram(fusion)
    size = len(gram)
    gram.flat[:: size + 1] += alpha
    factor = cho_factor(gram, lower=True, overwrite_a=True)
    found = cho_solve(factor, right)
    trace = alpha * np.trace(lapack.dpotri(factor[0], lower=1)[0])
    if rows.is_wide(fusion):
        rss, free = alpha**2 * np.sum(found**2), trace - 1
    else:
        rss = rows.yy - np.sum(found * right) - alpha * np.sum(found**2)
        free = rows.n_samples - size + trace - 1
    return float(rows.n_samples * rss / max(free, 1e-9) ** 2)


@dataclass(frozen=True, eq=False)
class Fit:
    """One linear map from columns to scores: one ridge, or several stacked.

    Parameters
    ----------
    members : sequence of (float, Solution)
        Ridges, and what the scores of each are multiplied by.
    offset : array of shape (n_outputs,)
        Added to the sum of the scores.
    scores : array of shape (n_looked_at, n_outputs)
        Of rows left out.
    verdict : Verdict
    penalties : dict of str to float
        Of each layer on its scaled features, strength included; infinite where it is unused.
    """

    members: Sequence[tuple[float, Solution]]
    offset: NDArray[np.float64]
    scores: NDArray[np.floating]
    verdict: Verdict
    penalties: Mapping[str, float]

    @property
    def alpha(self) -> float | None:
        """Strength; None where every ridge has its own."""
        return self.members[0][1].alpha if len(self.members) == 1 else None

    def line(self, n_features: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give weights (n_features, n_outputs) and intercept (n_outputs,) on all columns."""
        coef, intercept = np.zeros((n_features, len(self.offset))), self.offset.copy()
        for share, solution in self.members:
            spectrum = solution.spectrum
            own = spectrum.coef(solution.alpha)
            coef[solution.fusion.columns] += share * own
            intercept += share * spectrum.intercept(own)
        return coef, intercept

    def left_out(
        self, X: NDArray[np.floating], Y: NDArray[np.floating], weight: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Predict rows that were fitted, each by a fit without it: (n_samples, n_outputs)."""
        scores = np.zeros(Y.shape) + self.offset
        for share, solution in self.members:
            turned = solution.spectrum.coordinates(X)
            alphas = np.array([solution.alpha])
            (own,) = solution.spectrum.left_out(turned, Y, weight, alphas, ())
            scores += share * own
        return scores

    def importance(
        self, rows: RidgeRows, layers: Mapping[str, tuple[int, int]]
    ) -> dict[str, float]:
        """Share of each layer in the effective degrees of freedom; of sum 1, 0 where unused."""
        each = np.zeros(rows.X.shape[1])
        for share, solution in self.members:
            each += share * _degrees(rows, solution)
        sums = {name: max(float(each[a:b].sum()), 0.0) for name, (a, b) in layers.items()}
        total = sum(sums.values())
        return {name: part / total if total else 0.0 for name, part in sums.items()}


def _degrees(rows: RidgeRows, solution: Solution) -> NDArray[np.float64]:
    """Degrees of freedom of every column: the trace of the hat matrix is a sum over columns."""
    columns, spectrum = solution.fusion.columns, solution.spectrum
    if rows.moments is not None:
        raw = rows.moments.gram_about_mean(columns) @ spectrum.basis
    else:
        centred = rows.X[:, columns] - spectrum.x_mean
        raw = centred.T @ (rows.weight[:, None] * (centred @ spectrum.basis))
    each = np.zeros(rows.X.shape[1])
    each[columns] = (raw * spectrum.basis) @ (1 / (spectrum.values + solution.alpha))
    return each
