"""Probabilities for classifiers that only score: one temperature, fitted out of fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    has_fit_parameter,
    validate_data,
)

from pipeline.heads.inner import inner_folds, part_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TemperatureClassifier", "best_temperature", "log_loss_at", "softmax"]

_MOST_ROWS = 4_000
_TINY = 1e-15


class TemperatureClassifier(ClassifierMixin, BaseEstimator):
    """A scoring classifier with calibrated probabilities: ``softmax(scores / T)``.

    The temperature ``T`` has the lowest log-loss on scores of inner folds, which no row
    helped to fit (Guo et al., 2017, arXiv 1706.04599).

    Parameters
    ----------
    estimator : classifier with ``decision_function``
    n_splits : int
        Inner folds.
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

    def __init__(self, estimator: Any, *, n_splits: int = 3, random_state: int = 0) -> None:
        self.estimator = estimator
        self.n_splits = n_splits
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit on all rows, and the temperature on inner folds."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has only one class, {self.classes_[0]!r}: at least two are needed."
            )
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        self.estimator_ = self._fitted(X, y, sample_weight)
        self.temperature_ = self._temperature(X, y, sample_weight, groups)
        return self

    def _fitted(self, X: Any, y: Any, weight: Any) -> Any:
        estimator = clone(self.estimator)
        weighted = weight is not None and has_fit_parameter(estimator, "sample_weight")
        return estimator.fit(X, y, **({"sample_weight": weight} if weighted else {}))

    def _temperature(
        self, X: Any, y: NDArray[Any], weight: Any, groups: Sequence[Any] | None
    ) -> float:
        rows = part_of(y, _MOST_ROWS, self.random_state, is_class=True)
        own_groups = None if groups is None else [groups[row] for row in rows]
        pairs = inner_folds(
            y[rows], self.n_splits, random_state=self.random_state, groups=own_groups
        )
        scores, truth = [], []
        for train, test in pairs:
            kept, held = rows[train], rows[test]
            fitted = self._fitted(X[kept], y[kept], None if weight is None else weight[kept])
            scores.append(_columns(fitted.decision_function(X[held])))
            truth.append(np.searchsorted(self.classes_, y[held]))
        if not scores:
            return 1.0
        return best_temperature(np.concatenate(scores), np.concatenate(truth))

    def decision_function(self, X: Any) -> NDArray[np.floating]:
        """Give scores over the temperature: one for two classes, else one a class."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scores: NDArray[np.floating] = self.estimator_.decision_function(X)
        return scores / self.temperature_

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Give class probabilities: shape (n_samples, n_classes)."""
        return softmax(_columns(self.decision_function(X)))

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the class of the highest probability: shape (n_samples,)."""
        best = _columns(self.decision_function(X)).argmax(axis=1)
        return np.asarray(self.classes_[best])


def best_temperature(scores: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    """Find the temperature of the lowest log-loss.

    Parameters
    ----------
    scores : array of shape (n_samples, n_classes)
    truth : int array of shape (n_samples,)
        Column of the right class.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return log_loss_at(float(np.exp(log_temperature)), scores, truth)

    return float(np.exp(minimize_scalar(loss, bounds=(-8.0, 4.0), method="bounded").x))


def log_loss_at(
    temperature: float, scores: NDArray[np.floating], truth: NDArray[np.int64]
) -> float:
    """Mean log-loss of ``softmax(scores / temperature)``."""
    own = softmax(scores / temperature)[np.arange(len(truth)), truth]
    return float(-np.log(np.clip(own, _TINY, 1)).mean())


def _columns(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """Give two classes a column each."""
    return np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores


def softmax(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """Give probabilities along the last axis."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
