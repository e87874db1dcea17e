"""Heads whose strength is chosen by inner cross-validation on the rows they are fitted on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from pipeline.heads.inner import (
    class_loss,
    classes_of,
    fit_weighted,
    inner_rows,
    number_loss,
    rows_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TunedClassifier", "TunedRegressor"]


class _Tuned(BaseEstimator):
    """What both share: choose, then fit on all rows."""

    def __init__(
        self,
        estimator: Any,
        parameter: str,
        values: Sequence[Any],
        *,
        n_splits: int = 3,
        cv: Any = None,
        random_state: Any = 0,
    ) -> None:
        self.estimator = estimator
        self.parameter = parameter
        self.values = values
        self.n_splits = n_splits
        self.cv = cv
        self.random_state = random_state

    _is_class: bool

    def _choose(
        self, X: Any, y: NDArray[Any], weight: Any, groups: Sequence[Any] | None
    ) -> list[float]:
        """Give the summed out-of-fold loss of every value."""
        loss = class_loss if self._is_class else number_loss
        losses = [0.0] * len(self.values)
        for train, test in inner_rows(
            y, groups, self.n_splits, cv=self.cv, random_state=self.random_state,
            is_class=self._is_class,
        ):  # fmt: skip
            estimator = clone(self.estimator)  # one along all values: it may start warm
            for place, value in enumerate(self.values):
                self._fit_one(estimator, value, X[train], y[train], rows_of(weight, train))
                losses[place] += loss(estimator, X[test], y[test], rows_of(weight, test))
        return losses

    def _fit_one(self, estimator: Any, value: Any, X: Any, y: Any, weight: Any) -> Any:
        if self.parameter == "n_neighbors":
            value = min(value, len(y))
        estimator.set_params(**{self.parameter: value})
        with warnings.catch_warnings():
            # A strength that does not converge loses the comparison, or is close enough.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return fit_weighted(estimator, X, y, weight)

    def _fit(self, X: Any, y: Any, sample_weight: Any, groups: Any) -> Self:
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        self.losses_ = self._choose(X, y, sample_weight, groups)
        self.best_value_ = self.values[int(np.argmin(self.losses_))]
        self.estimator_ = self._fit_one(
            clone(self.estimator), self.best_value_, X, y, sample_weight
        )
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict: shape (n_samples,)."""
        check_is_fitted(self)
        found: NDArray[Any] = self.estimator_.predict(self._valid(X))
        return found

    def _valid(self, X: Any) -> Any:
        return validate_data(self, X, dtype=[np.float64, np.float32], reset=False)


def _scores(head: TunedClassifier) -> bool:
    return hasattr(getattr(head, "estimator_", head.estimator), "decision_function")


class TunedClassifier(ClassifierMixin, _Tuned):
    """A classifier with the value of one parameter that has the lowest inner log-loss.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``
    parameter : str
        What is chosen, for instance ``"C"``.
    values : sequence
        Values to compare; of equal losses the first wins.
    n_splits : int
        Inner folds.
    cv : list of (train rows, test rows), optional
        Inner folds of your own, instead of stratified ones.
    random_state : int
        Seed of the folds, and of the 4,000 rows that are looked at where there are more.

    Attributes
    ----------
    best_value_ : the value chosen
    losses_ : list of float
        Summed inner log-loss of each value.
    estimator_ : the estimator fitted on all rows

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = np.arange(20.0)[:, None], np.repeat(["low", "high"], 10)
    >>> TunedClassifier(LogisticRegression(), "C", [0.01, 1.0]).fit(X, y).predict([[19.0]])
    array(['high'], dtype='<U4')
    """

    _is_class = True

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Choose the value, and fit on all rows; ``groups`` stay together in the folds."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        self.classes_, _ = classes_of(y)
        return self._fit(X, y, sample_weight, groups)

    @available_if(_scores)  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> NDArray[np.floating]:
        """Give the scores of the estimator: one for two classes, else one a class."""
        check_is_fitted(self)
        found: NDArray[np.floating] = self.estimator_.decision_function(self._valid(X))
        return found

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Give class probabilities: shape (n_samples, n_classes)."""
        check_is_fitted(self)
        found: NDArray[np.floating] = self.estimator_.predict_proba(self._valid(X))
        return found


class TunedRegressor(RegressorMixin, _Tuned):
    """A regressor with the value of one parameter that has the lowest inner squared error.

    The parameters are those of `TunedClassifier`.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> X = np.arange(20.0)[:, None]
    >>> TunedRegressor(Ridge(), "alpha", [0.1, 1e6]).fit(X, X[:, 0]).best_value_
    0.1
    """

    _is_class = False

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Choose the value, and fit on all rows; ``groups`` stay together in the folds."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], y_numeric=True)
        return self._fit(X, y, sample_weight, groups)
