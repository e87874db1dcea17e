"""Ridge on class indicators or numbers: the penalty by exact leave-one-out, without refitting.

With centred rows ``X`` and ``H = X (X'X + a I)^-1 X' + 1/n`` the prediction for a row by a fit
without it is ``y - (y - Hy) / (1 - diag H)``; a group of rows leaves together through its block
of ``H`` (Allen, 1974; Hastie, Tibshirani and Friedman, 2009, section 7.10). The factor of one
Cholesky decomposition a penalty gives both the weights and ``diag H``, at the rate of a matrix
product; fewer rows than features are solved in the space of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from pipeline.heads.inner import classes_of
from pipeline.heads.temperature import best_temperature, log_loss_at, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LooRidgeClassifier", "LooRidgeRegressor"]

ALPHAS = tuple(10.0**power for power in range(-1, 7))
_MOST_ROWS = 4_000
"""Rows whose leave-one-out predictions are looked at; each is exact, more would choose the same."""
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class _Centred:
    """Rows ready to be solved: weighted means taken off, rows scaled by the root of their weight.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
    Y : array of shape (n_samples, n_outputs)
    root : array of shape (n_samples,)
        Root of the weights, which add up to 1 here.
    x_mean, y_mean : arrays of shape (n_features,) and (n_outputs,)
    """

    X: NDArray[np.float64]
    Y: NDArray[np.float64]
    root: NDArray[np.float64]
    x_mean: NDArray[np.float64]
    y_mean: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Solution:
    """Weights for one penalty, and what each row looked at gets from a fit without it."""

    alpha: float
    coef: NDArray[np.float64]
    left_out: NDArray[np.float64]


def _centred(X: Any, Y: NDArray[np.float64], weight: NDArray[np.float64]) -> _Centred:
    share = weight / weight.sum()
    scale = np.sqrt(weight)[:, None]
    x_mean, y_mean = share @ np.asarray(X, np.float64), share @ Y
    return _Centred((X - x_mean) * scale, (Y - y_mean) * scale, np.sqrt(share), x_mean, y_mean)


def _solve(
    rows: _Centred,
    alphas: Sequence[float],
    looked_at: NDArray[np.int64],
    families: Sequence[NDArray[np.int64]] | None,
) -> Iterator[_Solution]:
    """Solve for one penalty after the other."""
    X, Y = rows.X, rows.Y
    wide = X.shape[1] > X.shape[0]
    gram = X @ X.T if wide else X.T @ X
    right = Y if wide else X.T @ Y
    basis = np.eye(len(X))[:, looked_at] if wide else X[looked_at].T
    for alpha in alphas:
        shifted = gram.copy()
        shifted.flat[:: len(gram) + 1] += alpha
        factor = cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)
        solved = cho_solve(factor, right, check_finite=False)
        coef = X.T @ solved if wide else solved
        half = solve_triangular(factor[0], basis, lower=True, check_finite=False)
        residual = Y[looked_at] - X[looked_at] @ coef
        gone = _without(residual, half, alpha if wide else None, rows.root[looked_at], families)
        yield _Solution(alpha, coef, Y[looked_at] - gone)


def _without(
    residual: NDArray[np.float64],
    half: NDArray[np.float64],
    alpha: float | None,
    root: NDArray[np.float64],
    families: Sequence[NDArray[np.int64]] | None,
) -> NDArray[np.float64]:
    """Turn residuals into those of fits without the row, or without its family.

    ``half.T @ half`` is ``H`` less ``1/n`` (primal) or ``(1 + 1/n - H) / alpha`` (dual).
    """
    squares = np.einsum("ij,ij->j", half, half)
    alone = (alpha * squares if alpha is not None else 1 - squares) - root**2
    gone = np.asarray(residual / np.maximum(alone, _TINY)[:, None])
    for family in (several for several in families or () if len(several) > 1):
        block = half[:, family].T @ half[:, family]
        kept = alpha * block if alpha is not None else np.eye(len(family)) - block
        kept = kept - np.outer(root[family], root[family])
        gone[family] = np.linalg.lstsq(kept, residual[family], rcond=None)[0]
    return gone


def _looked_at(
    n_samples: int, random_state: Any, groups: Sequence[Any] | None, cv: Any
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]] | None]:
    """Choose rows to look at, whole groups of them, and say which of these leave together."""
    if cv is not None:
        tests = [np.asarray(test) for _, test in cv]
        ends = np.cumsum([len(test) for test in tests])
        return np.concatenate(tests), np.split(np.arange(ends[-1]), ends[:-1])
    rng = np.random.default_rng(check_random_state(random_state).randint(2**31))
    if groups is None:
        return np.sort(rng.permutation(n_samples)[:_MOST_ROWS]), None
    members: dict[Any, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(("alone", row) if group in (None, "") else group, []).append(row)
    together = list(members.values())
    rows: list[int] = []
    families = []
    for own in (together[place] for place in rng.permutation(len(together))):
        if rows and len(rows) + len(own) > _MOST_ROWS:
            break
        families.append(np.arange(len(rows), len(rows) + len(own)))
        rows += own
    return np.array(rows), families


class _LooRidge(BaseEstimator):
    """What both share: the solution with the lowest leave-one-out loss."""

    def _fit_path(
        self,
        X: Any,
        Y: NDArray[np.float64],
        weight: NDArray[np.float64],
        groups: Sequence[Any] | None,
        loss: Callable[[NDArray[np.float64], NDArray[np.int64]], float],
    ) -> None:
        """Keep the weights of the penalty whose leave-one-out predictions lose least."""
        looked_at, families = _looked_at(len(X), self.random_state, groups, self.cv)
        rows = _centred(X, Y, weight)
        # A row without weight says nothing, and nothing is asked about it.
        scale = np.sqrt(np.where(weight > 0, weight, 1))[looked_at, None]
        self.losses_: list[float] = []
        for found in _solve(rows, self.alphas, looked_at, families):
            self.losses_.append(loss(found.left_out / scale + rows.y_mean, looked_at))
            if self.losses_[-1] == min(self.losses_) and self.losses_.count(self.losses_[-1]) == 1:
                self.alpha_ = found.alpha
                self.coef_ = found.coef
                self.intercept_ = rows.y_mean - rows.x_mean @ found.coef

    def _scores(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return np.asarray(X @ self.coef_ + self.intercept_)


class LooRidgeClassifier(ClassifierMixin, _LooRidge):
    """Ridge on class indicators with calibrated probabilities.

    For each penalty the leave-one-out scores are turned into probabilities by one temperature;
    the penalty and temperature of the lowest log-loss win (Dempster, Webb and Schmidt, 2024,
    arXiv 2401.15610). No row helps to predict itself, and nothing is fitted twice.

    Parameters
    ----------
    alphas : sequence of float
        Penalties to compare.
    class_weight : {"balanced", None} or dict
    cv : list of (train rows, test rows), optional
        The rows of one test side leave together, instead of one row at a time.
    random_state : int
        Seed of the 4,000 rows that are looked at where there are more.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    alpha_, temperature_ : float
    losses_ : list of float
        Leave-one-out log-loss of each penalty.
    coef_ : array of shape (n_features, n_classes)
    intercept_ : array of shape (n_classes,)

    Examples
    --------
    >>> X, y = np.arange(20.0)[:, None], np.repeat(["high", "low"], 10)
    >>> LooRidgeClassifier().fit(X, y).predict([[0.0], [19.0]])
    array(['high', 'low'], dtype='<U4')
    """

    def __init__(
        self,
        alphas: Sequence[float] = ALPHAS,
        *,
        class_weight: Any = None,
        cv: Any = None,
        random_state: Any = 0,
    ) -> None:
        self.alphas = alphas
        self.class_weight = class_weight
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit; rows of one group leave together."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        self.classes_, codes = classes_of(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has only one class, {self.classes_.tolist()[0]!r}: at least two are needed."
            )
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, copy=True)
        if self.class_weight is not None:
            by_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
            weight = weight * by_class[codes]
        indicators = np.eye(len(self.classes_))[codes]
        temperatures: list[float] = []

        def loss(scores: NDArray[np.float64], rows: NDArray[np.int64]) -> float:
            temperatures.append(best_temperature(scores, codes[rows], weight[rows]))
            return log_loss_at(temperatures[-1], scores, codes[rows], weight[rows])

        self._fit_path(X, indicators, weight, groups, loss)
        self.temperature_ = temperatures[int(np.argmin(self.losses_))]
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Give scores over the temperature: one for two classes, else one a class."""
        scores = self._scores(X)
        scores = scores / self.temperature_
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Give class probabilities: shape (n_samples, n_classes)."""
        scores = self._scores(X)
        return softmax(scores / self.temperature_)

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the class of the highest score: shape (n_samples,)."""
        best = self._scores(X).argmax(axis=1)
        return np.asarray(self.classes_[best])


class LooRidgeRegressor(RegressorMixin, _LooRidge):
    """Ridge on a number; the penalty has the lowest leave-one-out squared error.

    Parameters
    ----------
    alphas : sequence of float
    cv : list of (train rows, test rows), optional
        The rows of one test side leave together, instead of one row at a time.
    random_state : int

    Attributes
    ----------
    alpha_ : float
    losses_ : list of float
    coef_ : array of shape (n_features, 1)
    intercept_ : array of shape (1,)

    Examples
    --------
    >>> X = np.arange(20.0)[:, None]
    >>> LooRidgeRegressor().fit(X, 2 * X[:, 0]).predict([[5.0]]).round(1)
    array([10.])
    """

    def __init__(
        self, alphas: Sequence[float] = ALPHAS, *, cv: Any = None, random_state: Any = 0
    ) -> None:
        self.alphas = alphas
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit; rows of one group leave together."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], y_numeric=True)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, copy=True)
        goal = np.asarray(y, np.float64)

        def loss(predicted: NDArray[np.float64], rows: NDArray[np.int64]) -> float:
            return float(np.average((predicted[:, 0] - goal[rows]) ** 2, weights=weight[rows]))

        self._fit_path(X, goal[:, None], weight, groups, loss)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Predict: shape (n_samples,)."""
        return self._scores(X)[:, 0]
