"""Calibration class by class: logistic regression on the scores of rows left out.

One temperature shares its doubt among all classes alike. Where there are rows enough, a matrix
learns which classes are mistaken for which (matrix scaling: Guo et al., 2017, arXiv 1706.04599;
on left-out scores it is stacking, Wolpert, 1992). It is used only where rows that it has not
seen say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.heads.inner import inner_folds
from pipeline.heads.judging import ClassJudge, error_of, mean_of
from pipeline.heads.temperature import two_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MatrixCalibration", "matrix_calibration"]

_STRENGTHS = (0.1, 1.0, 10.0)
_FOLDS = 5
_FEW_CLASSES = 20
_TINY = 1e-15
_LEAST_GAIN = 1e-3


@dataclass(eq=False)
class MatrixCalibration:
    """Logits made of logits: which classes are mistaken for which.

    Parameters
    ----------
    matrix : array of shape (n_classes, n_classes)
    offset : array of shape (n_classes,)
    log_loss : float
        On rows that each matrix had not seen.
    """

    matrix: NDArray[np.floating]
    offset: NDArray[np.floating]
    log_loss: float

    def of(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Calibrate logits of shape (n_samples, n_classes)."""
        return np.asarray(logits @ self.matrix + self.offset)


def matrix_calibration(
    logits: NDArray[np.floating], judge: ClassJudge, groups: Any, seed: int
) -> MatrixCalibration | None:
    """Fit the matrix, unless one temperature does as well.

    Parameters
    ----------
    logits : array of shape (n_samples, n_classes)
        Scores of rows left out, over their temperature.
    judge : ClassJudge
    groups : sequence of shape (n_samples,), optional
        Rows of one group are never on both sides.
    seed : int

    Returns
    -------
    MatrixCalibration, or None
        None where the log-loss is not lower by one standard error, or rows are few.
    """
    n_classes = logits.shape[1]
    counted = np.flatnonzero(judge.weight)
    X, y, weight = logits[counted].astype(np.float64), judge.codes[counted], judge.weight[counted]
    if len(np.unique(y)) < n_classes or len(y) < 20 * n_classes:
        return None
    own = None if groups is None else [groups[row] for row in counted]
    splits = inner_folds(y, _FOLDS, random_state=seed, groups=own)
    plain = ClassJudge(y, weight).verdict(X, 1.0).losses
    losses = {strength: _losses(X, y, weight, splits, strength) for strength in _STRENGTHS}
    tested = np.sort(np.concatenate([test for _, test in splits])) if splits else np.arange(0)
    best = min(losses, key=lambda strength: mean_of(losses[strength][tested], weight[tested]))
    gain = (plain - losses[best])[tested]
    error = error_of(gain, weight[tested])
    if error is None or not mean_of(gain, weight[tested]) > max(error, _LEAST_GAIN):
        return None
    fitted = _logistic(best, n_classes).fit(X, y, sample_weight=weight)
    matrix, offset = two_columns(fitted.coef_.T), two_columns(fitted.intercept_[None])[0]
    return MatrixCalibration(matrix, offset, mean_of(losses[best][tested], weight[tested]))


def _losses(
    X: NDArray[np.floating],
    y: NDArray[np.int64],
    weight: NDArray[np.float64],
    splits: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    strength: float,
) -> NDArray[np.float64]:
    losses = np.full(len(y), np.nan)
    for train, test in splits:
        fitted = _logistic(strength, X.shape[1]).fit(
            X[train], y[train], sample_weight=weight[train]
        )
        proba = fitted.predict_proba(X[test])
        places = np.searchsorted(fitted.classes_, y[test])
        losses[test] = -np.log(np.clip(proba[np.arange(len(test)), places], _TINY, 1))
    return losses


def _logistic(strength: float, n_classes: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    # A Newton step is quick while its matrix, (n_classes squared) a side, is small.
    solver = "newton-cholesky" if n_classes <= _FEW_CLASSES else "lbfgs"
    return LogisticRegression(C=strength, solver=solver, max_iter=300, tol=1e-3)
