"""Members of a stack: each learns by itself, and scores rows that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.heads.inner import inner_rows
from pipeline.heads.judging import ClassJudge
from pipeline.heads.temperature import two_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.heads.labels import Labels

__all__ = ["Line", "fit_logistic"]

_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
_FOLDS = 3


@dataclass(eq=False)
class Line:
    """Scores that are linear in scaled columns.

    Parameters
    ----------
    coef : array of shape (n_features, n_outputs)
    intercept : array of shape (n_outputs,)
    """

    coef: NDArray[np.floating]
    intercept: NDArray[np.floating]

    def scores(self, X: NDArray[np.floating]) -> NDArray[np.float64]:
        """Score rows as they are."""
        return np.asarray(X @ self.coef.astype(X.dtype) + self.intercept)


def fit_logistic(
    X: NDArray[np.floating],
    labels: Labels,
    offset: NDArray[np.float64],
    factor: NDArray[np.float64],
    *,
    groups: Sequence[Any] | None,
    cv: Any = None,
    start: Line,
    random_state: int,
) -> tuple[Line, NDArray[np.float64]]:
    """Fit multinomial logistic regression, its strength by cross-validation.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
    labels : Labels
        Of classes.
    offset, factor : arrays of shape (n_features,)
        The scaled value of a column is ``(x - offset) * factor``.
    groups : sequence of shape (n_samples,), optional
    cv : list of (train rows, test rows), optional
        Folds, instead of stratified ones.
    start : Line
        Where the fit on all rows begins.
    random_state : int

    Returns
    -------
    line : Line
    logits : array of shape (n_samples, n_classes)
        Of each row by a fit without its fold; NaN for rows that no fold tests.
    """
    judge = labels.judge
    assert isinstance(judge, ClassJudge)
    Z = (X - offset.astype(X.dtype)) * factor.astype(X.dtype)
    n_classes = labels.Y.shape[1]
    folds = inner_rows(judge.codes, groups, _FOLDS, cv=cv, random_state=random_state)
    path = [_logistic() for _ in folds]
    tested = np.sort(np.concatenate([test for _, test in folds])) if folds else np.arange(0)
    best, best_loss, strength = np.full((len(X), n_classes), np.nan), np.inf, _STRENGTHS[0]
    for candidate in _STRENGTHS:
        logits = np.full((len(X), n_classes), np.nan)
        for own, (train, test) in zip(path, folds, strict=True):
            own.set_params(C=candidate)  # each goes on from where the stronger penalty ended
            own.fit(Z[train], judge.codes[train], sample_weight=labels.weight[train])
            logits[test] = two_columns(own.decision_function(Z[test]).reshape(len(test), -1))
        loss = judge.subset(tested).verdict(logits[tested]).loss
        if not loss < best_loss:
            break
        best, best_loss, strength = logits, loss, candidate
    last = _logistic().set_params(C=strength)
    _begin(last, start, offset, factor)
    last.fit(Z, judge.codes, sample_weight=labels.weight)
    coef, intercept = two_columns(last.coef_.T), two_columns(last.intercept_[None])[0]
    coef = coef * factor[:, None]
    return Line(coef, intercept - offset @ coef), best


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=300, tol=1e-5, warm_start=True)


def _begin(
    logistic: Any, start: Line, offset: NDArray[np.float64], factor: NDArray[np.float64]
) -> None:
    """Start where ridge ended, on scaled columns."""
    used = factor > 0
    coef = np.where(used[:, None], start.coef / np.where(used, factor, 1)[:, None], 0)
    intercept = start.intercept + offset @ start.coef
    if len(intercept) == 2:
        coef, intercept = coef[:, 1:] - coef[:, :1], intercept[1:] - intercept[:1]
    logistic.coef_, logistic.intercept_ = np.ascontiguousarray(coef.T), intercept
    logistic.classes_ = np.arange(len(start.intercept))
