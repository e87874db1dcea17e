"""A head for each label of a multi-label target."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SeveralLabels"]


class SeveralLabels(BaseEstimator):
    """One binary classifier for each label.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``
    labels : sequence of str, optional
        Names of the columns of ``y``.

    Attributes
    ----------
    classes_ : array of shape (n_labels,)
        The labels.
    estimator_ : OneVsRestClassifier

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

    def fit(self, X: Any, y: Any) -> Self:
        """Fit a classifier for each of the 0/1 columns of ``y`` (n_samples, n_labels)."""
        from sklearn.multiclass import OneVsRestClassifier

        names = range(np.shape(y)[1]) if self.labels is None else self.labels
        self.classes_ = np.array(list(names))
        with warnings.catch_warnings():
            # A label that every row has, or none, is predicted so.
            warnings.filterwarnings("ignore", "Label .* is present in all training examples")
            self.estimator_ = OneVsRestClassifier(self.estimator).fit(X, np.asarray(y))
        return self

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Predict 0/1 for each label: shape (n_samples, n_labels)."""
        return (self.predict_proba(X) > 0.5).astype(np.int64)

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Give the probability of each label: shape (n_samples, n_labels)."""
        check_is_fitted(self)
        proba = np.asarray(self.estimator_.predict_proba(X))
        if len(self.classes_) == 1:  # scikit-learn takes one label for two classes
            proba = proba[:, -1:]
        return proba
