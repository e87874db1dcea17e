"""Linear discriminant analysis with one covariance for all classes, shrunk as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.covariance import ledoit_wolf
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import check_is_fitted, validate_data

from pipeline.heads.inner import classes_of
from pipeline.heads.temperature import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PooledDiscriminant"]

_FLOOR = 1e-6
"""Least share of the mean variance on the diagonal: constant features stay solvable."""


class PooledDiscriminant(ClassifierMixin, BaseEstimator):
    r"""Gaussian classes around their means, of one covariance ``S``.

    The score of class ``c`` is :math:`x' S^{-1} m_c - m_c' S^{-1} m_c / 2 + \log p_c`, and
    ``S`` the covariance of all rows about the means of their classes, shrunk towards a
    multiple of the identity by Ledoit and Wolf (2004). scikit-learn's own shrinks class by
    class, which asks for several rows of each; here a class of one row is welcome.

    Parameters
    ----------
    class_weight : {"balanced", None} or dict
        Factors on the shares ``p_c`` of the classes; ``"balanced"`` makes them equal.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    coef_ : array of shape (n_features, n_classes)
    intercept_ : array of shape (n_classes,)
    shrinkage_ : float
        0 leaves the covariance as it is, 1 leaves only its mean variance.

    Examples
    --------
    >>> X, y = np.array([[0.0], [1.0], [8.0], [9.0], [20.0]]), np.array(list("aabbc"))
    >>> PooledDiscriminant().fit(X, y).predict([[2.0], [19.0]])
    array(['a', 'c'], dtype='<U1')
    """

    def __init__(self, *, class_weight: Any = None) -> None:
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on rows (n_samples, n_features) and their labels (n_samples,)."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2)
        self.classes_, codes = classes_of(y)
        counts = np.bincount(codes)
        X = np.asarray(X, np.float64)
        means = np.eye(len(counts))[codes].T @ X / counts[:, None]
        covariance, self.shrinkage_ = ledoit_wolf(X - means[codes], assume_centered=True)
        covariance.flat[:: X.shape[1] + 1] += _FLOOR * covariance.trace() / X.shape[1] or 1.0
        factors = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        shares = counts * factors
        self.coef_ = cho_solve(cho_factor(covariance), means.T)
        self.intercept_ = np.log(shares / shares.sum()) - (means.T * self.coef_).sum(axis=0) / 2
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Give log-probabilities up to a constant: one for two classes, else one a class."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Give class probabilities: shape (n_samples, n_classes)."""
        return softmax(self._scores(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the class of the highest score: shape (n_samples,)."""
        best = self._scores(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def _scores(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return np.asarray(X @ self.coef_ + self.intercept_)
