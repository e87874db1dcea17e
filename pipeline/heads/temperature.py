"""Probabilities for classifiers that only score: one temperature, fitted out of fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from pipeline.heads.inner import classes_of, fit_weighted, inner_rows, rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "TemperatureClassifier",
    "best_temperature",
    "log_loss_at",
    "softmax",
    "two_columns",
]

_TINY = 1e-15
_BOUND = 12.0
"""Of the logarithm of the temperature."""
_ROUNDS = 100


class TemperatureClassifier(ClassifierMixin, BaseEstimator):
    """A scoring classifier with calibrated probabilities: ``softmax(scores / T)``.

    The temperature ``T`` has the lowest log-loss on scores of inner folds, which no row
    helped to fit (Guo et al., 2017, arXiv 1706.04599).

    Parameters
    ----------
    estimator : classifier with ``decision_function``
    n_splits : int
        Inner folds.
    cv : list of (train rows, test rows), optional
        Inner folds of your own, instead of stratified ones.
    random_state : int
        Seed of the folds, and of the 4,000 rows that are looked at where there are more.

    Attributes
    ----------
    temperature_ : float
    estimator_ : the estimator fitted on all rows

    Examples
    --------
    >>> from sklearn.linear_model import RidgeClassifier
    >>> X, y = np.arange(20.0)[:, None], np.repeat(["high", "low"], 10)
    >>> head = TemperatureClassifier(RidgeClassifier()).fit(X, y)
    >>> bool(head.predict_proba([[19.0]])[0, 1] > 0.9)
    True
    """

    def __init__(
        self, estimator: Any, *, n_splits: int = 3, cv: Any = None, random_state: Any = 0
    ) -> None:
        self.estimator = estimator
        self.n_splits = n_splits
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit on all rows, and the temperature on inner folds."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        self.classes_, _ = classes_of(y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        self.estimator_ = self._fitted(X, y, sample_weight)
        self.temperature_ = self._temperature(X, y, sample_weight, groups)
        return self

    def _fitted(self, X: Any, y: Any, weight: Any) -> Any:
        return fit_weighted(clone(self.estimator), X, y, weight)

    def _temperature(
        self, X: Any, y: NDArray[Any], weight: Any, groups: Sequence[Any] | None
    ) -> float:
        scores, truth, weights = [], [], []
        for train, test in inner_rows(
            y, groups, self.n_splits, cv=self.cv, random_state=self.random_state
        ):
            fitted = self._fitted(X[train], y[train], rows_of(weight, train))
            scores.append(_all_columns(fitted, X[test], self.classes_))
            truth.append(np.searchsorted(self.classes_, y[test]))
            weights.append(np.ones(len(test)) if weight is None else weight[test])
        if not scores:
            return 1.0
        return best_temperature(
            np.concatenate(scores), np.concatenate(truth), np.concatenate(weights)
        )

    def decision_function(self, X: Any) -> NDArray[np.floating]:
        """Give logits: one for two classes (of the second), else one a class."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Give class probabilities: shape (n_samples, n_classes)."""
        return softmax(self._logits(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the class of the highest probability: shape (n_samples,)."""
        best = self._logits(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def _logits(self, X: Any) -> NDArray[np.floating]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return _columns(self.estimator_.decision_function(X)) / self.temperature_


def best_temperature(
    scores: NDArray[np.floating],
    truth: NDArray[np.int64],
    weight: NDArray[np.floating] | None = None,
) -> float:
    """Find the temperature of the lowest log-loss.

    The loss is convex in ``1 / T``, so its slope has one root: Newton's steps on its logarithm
    find it, halving the interval where they would leave it. The true class counts
    ``1 - e`` and all classes share ``e = 1 / (n + 2)``, as in Platt (1999): scores without a
    single mistake would otherwise ask for probabilities of 0 and 1.

    Parameters
    ----------
    scores : array of shape (n_samples, n_classes)
    truth : int array of shape (n_samples,)
        Column of the right class.
    weight : array of shape (n_samples,), optional

    Examples
    --------
    >>> scores = np.log([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.8, 0.2]] * 100)
    >>> round(best_temperature(scores, np.array([0, 0, 0, 0, 1] * 100)), 2)
    1.0
    """
    counted = np.ones(len(truth)) if weight is None else np.asarray(weight, np.float64)
    single = np.asarray(scores).dtype == np.float32
    scores = np.asarray(scores, np.float32 if single else np.float64)
    # Classes first: all sums over classes then run along rows, many at a time.
    columns: NDArray[Any] = np.ascontiguousarray((scores - scores.mean(axis=1, keepdims=True)).T)
    softness = 1 / (counted.sum() + 2)
    right = (1 - softness) * float(counted @ columns[truth, np.arange(len(truth))])
    low, high = -_BOUND, _BOUND
    spread = float(counted @ np.square(columns).mean(axis=0)) / max(counted.sum(), _TINY)
    guess = float(np.clip(-0.5 * np.log(max(spread, _TINY)), low, high))
    settled = float(np.finfo(columns.dtype).eps) ** 0.75
    for _ in range(_ROUNDS):
        slope, bend = _slope_and_bend(columns, counted, right, guess)
        low, high = (guess, high) if slope < 0 else (low, guess)
        step = slope / bend if bend > 0 else np.inf
        if abs(step) < settled or high - low < settled:
            break
        guess = guess - step if low < guess - step < high else (low + high) / 2
    return float(np.exp(-guess))


def _slope_and_bend(
    columns: NDArray[Any], weight: NDArray[np.float64], right: float, log_sharpness: float
) -> tuple[float, float]:
    """First two derivatives of the loss by the logarithm of ``1 / T``."""
    sharpness = float(np.exp(log_sharpness))
    powers = columns * columns.dtype.type(sharpness)
    powers -= powers.max(axis=0)
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=0)
    mean = np.einsum("cn,cn->n", powers, columns)
    powers *= columns
    square = np.einsum("cn,cn->n", powers, columns)
    slope = sharpness * (float(weight @ mean) - right)
    return slope, slope + sharpness**2 * float(weight @ (square - mean**2))


def log_loss_at(
    temperature: float,
    scores: NDArray[np.floating],
    truth: NDArray[np.int64],
    weight: NDArray[np.floating] | None = None,
) -> float:
    """Mean log-loss of ``softmax(scores / temperature)``."""
    own = softmax(scores / temperature)[np.arange(len(truth)), truth]
    return float(np.average(-np.log(np.clip(own, _TINY, 1)), weights=weight))


def _all_columns(
    fitted: Any, X: NDArray[np.floating], classes: NDArray[Any]
) -> NDArray[np.floating]:
    """Give every class a column; one that the inner fit has not seen scores lowest."""
    scores = _columns(fitted.decision_function(X))
    lowest = scores.min(axis=1, keepdims=True)
    full = np.repeat(lowest, len(classes), axis=1)
    full[:, np.searchsorted(classes, fitted.classes_)] = scores
    return full


def _columns(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """Give two classes a column each."""
    return np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores


def softmax(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """Give probabilities along the last axis."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def two_columns(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """Share one column of two classes out between them; more columns stay as they are.

    Examples
    --------
    >>> two_columns(np.array([[3.0]]))
    array([[-1.5,  1.5]])
    """
    return np.hstack([-scores, scores]) / 2 if scores.shape[1] == 1 else scores
