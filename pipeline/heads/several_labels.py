"""A head for each label of a multi-label target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from pipeline.errors import InputError
from pipeline.heads.inner import fit_weighted
from pipeline.heads.looking import parted_families
from pipeline.heads.ridge_base import LayerRidge

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SeveralLabels"]

_CERTAIN = 40.0
"""Logit of a label that all rows have: its probability is 1 in double precision."""


def _score(head: SeveralLabels) -> bool:
    fitted = getattr(head, "estimators_", [head.estimator])
    return all(isinstance(one, int) or hasattr(one, "decision_function") for one in fitted)


class SeveralLabels(ClassifierMixin, BaseEstimator):
    """One binary classifier for each label.

    A label that every row has, or none, is predicted so. Labels of one class a row (a ``y``
    of one dimension) go to a single classifier as they are.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``
    labels : sequence of str, optional
        Names of the columns of ``y``.

    Attributes
    ----------
    classes_ : array of shape (n_labels,)
        The labels.
    estimators_ : list
        A fitted classifier for each label, or the 0 or 1 that all rows have.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, Y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([[0, 1], [0, 1], [1, 0], [1, 0]])
    >>> SeveralLabels(LogisticRegression(), ["big", "small"]).fit(X, Y).predict([[3.0]])
    array([[1, 0]])
    """

    def __init__(self, estimator: Any, labels: Sequence[str] | None = None) -> None:
        self.estimator = estimator
        self.labels = labels

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit a classifier for each of the 0/1 columns of ``y`` (n_samples, n_labels)."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], multi_output=True)
        check_classification_targets(y)
        if self.labels is None and y.ndim == 2 and y.shape[1] == 1 and y.max() > 1:
            y = column_or_1d(y, warn=True)
        own = {} if groups is None else {"groups": groups}
        own = own if has_fit_parameter(self.estimator, "groups") else {}
        if y.ndim == 1:
            self.estimators_ = [fit_weighted(clone(self.estimator), X, y, sample_weight, **own)]
            self.classes_ = self.estimators_[0].classes_
            return self
        names = range(y.shape[1]) if self.labels is None else self.labels
        self.classes_ = np.array(list(names))
        if len(self.classes_) != y.shape[1] or not np.isin(y, (0, 1)).all():
            raise InputError(
                f"y has the shape {y.shape} and {len(self.classes_)} labels are named, but y "
                "must hold 0 or 1 in a column for each label."
            )
        self.estimators_ = [
            fit_weighted(clone(self.estimator), X, column, sample_weight, **self._own(own, column))
            if column.min() < column.max()
            else int(column[0])
            for column in y.T
        ]
        return self

    def _own(self, extras: dict[str, Any], column: NDArray[np.int64]) -> dict[str, Any]:
        """Give groups as the head takes them: a ridge never leaves a whole label out."""
        if "groups" not in extras or not isinstance(self.estimator, LayerRidge):
            return extras
        return {"groups": parted_families(column, extras["groups"])[0]}

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict 0/1 for each label: shape (n_samples, n_labels)."""
        proba = self.predict_proba(X)
        if self._one_class_a_row:
            return np.asarray(self.classes_[proba.argmax(axis=1)])
        return (proba > 0.5).astype(np.int64)

    @available_if(_score)  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> NDArray[np.floating]:
        """Give the logit of each label: shape (n_samples, n_labels)."""
        X = self._valid(X)
        if self._one_class_a_row:
            return np.asarray(self.estimators_[0].decision_function(X))
        columns = [
            np.full(len(X), _CERTAIN if one else -_CERTAIN)
            if isinstance(one, int)
            else one.decision_function(X)
            for one in self.estimators_
        ]
        return np.stack(columns, axis=1)

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Give the probability of each label: shape (n_samples, n_labels)."""
        X = self._valid(X)
        if self._one_class_a_row:
            return np.asarray(self.estimators_[0].predict_proba(X))
        columns = [
            np.full(len(X), float(one)) if isinstance(one, int) else one.predict_proba(X)[:, 1]
            for one in self.estimators_
        ]
        return np.stack(columns, axis=1)

    def _valid(self, X: Any) -> NDArray[np.floating]:
        check_is_fitted(self)
        valid: NDArray[np.floating] = validate_data(
            self, X, dtype=[np.float64, np.float32], reset=False
        )
        return valid

    @property
    def _one_class_a_row(self) -> bool:
        return len(self.estimators_) < len(self.classes_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
