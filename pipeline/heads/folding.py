"""Folding: a linear head as one affine map of the columns as they are.

Scaling, fusion, penalties, temperature and calibration are linear, one after the other, so all
of them together are known by what they make of zero and of each unit vector. So any head can be
folded that is linear, whatever its class; and one that is not is found out on other rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from pipeline.errors import OptionError, reason_of
from pipeline.heads.several_labels import SeveralLabels
from pipeline.heads.temperature import TemperatureClassifier, softmax, two_columns
from pipeline.heads.tuned import TunedClassifier, TunedRegressor

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Folded", "folded", "refuse_unfoldable"]

_VALUES_AT_ONCE = 4_000_000
_TEST_ROWS = 48
_ROUNDING = 1e-6
_WRAPPERS = (SeveralLabels, TemperatureClassifier, TunedClassifier, TunedRegressor)
_LINEAR = {
    "class": ("logistic", "ridge", "layer_ridge", "svm", "lda", "linear"),
    "multilabel": ("logistic", "ridge", "svm", "lda", "linear"),
    "number": ("ridge", "layer_ridge", "svm", "linear"),
}
_OPEN = "auto"
"""A name that says nothing yet."""


@dataclass(frozen=True, eq=False)
class Folded:
    """A linear head as one affine map.

    Parameters
    ----------
    coef : float64 array of shape (n_outputs, n_features)
    intercept : float64 array of shape (n_outputs,)
    classes : array of shape (n_outputs,), or None
        What the outputs are logits of; None for a number.
    kind : {"class", "multilabel", "number"}
    """

    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    classes: NDArray[Any] | None
    kind: str

    def scores(self, X: NDArray[np.floating]) -> NDArray[np.float64]:
        """Give logits, or the number: shape (n_samples, n_outputs)."""
        return np.asarray(np.asarray(X, np.float64) @ self.coef.T + self.intercept)

    def outputs(self, X: NDArray[np.floating]) -> NDArray[np.float64]:
        """Give probabilities, or the number: shape (n_samples, n_outputs)."""
        return self.linked(self.scores(X))

    def linked(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the probabilities, or the number, that scores stand for."""
        if self.kind == "number":
            return scores
        return np.asarray(softmax(scores) if self.kind == "class" else expit(scores))

    def softened(self, temperature: float) -> Folded:
        """Give the map with scores that are so many times smaller."""
        return replace(self, coef=self.coef / temperature, intercept=self.intercept / temperature)

    def estimator(self) -> Any:
        """Give the map as a fitted estimator of scikit-learn, which fits another if asked to."""
        from sklearn.linear_model import LinearRegression, LogisticRegression

        if self.kind == "number":
            return _filled(LinearRegression(), self.coef[0], float(self.intercept[0]))
        if self.kind == "multilabel":
            labels = [] if self.classes is None else self.classes.tolist()
            several = SeveralLabels(LogisticRegression(), labels)
            several.classes_, several.n_features_in_ = np.asarray(labels), self.coef.shape[1]
            several.estimators_ = [
                _filled(LogisticRegression(), coef[None], intercept[None], np.array([0, 1]))
                for coef, intercept in zip(self.coef, self.intercept, strict=True)
            ]
            return several
        coef, intercept = self.coef, self.intercept
        if len(coef) == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        return _filled(LogisticRegression(), coef, intercept, self.classes)


def _filled(estimator: Any, coef: Any, intercept: Any, classes: Any = None) -> Any:
    estimator.coef_, estimator.intercept_ = coef, intercept
    estimator.n_features_in_ = coef.shape[-1]
    if classes is not None:
        estimator.classes_ = np.asarray(classes)
    return estimator


def folded(head: Any, kind: str, n_features: int, *, name: str = "") -> Folded:
    """Fold a fitted head into one affine map of the columns that it takes.

    The softmax of the scores (``class``: one a class, of mean 0 in every row), their sigmoid
    (``multilabel``) or the scores themselves (``number``) are what the head predicts.

    Parameters
    ----------
    head : fitted predictor
        With ``decision_function`` and ``predict_proba``, or ``predict`` for a number; a
        Pipeline of fuser and head, for instance.
    kind : {"class", "multilabel", "number"}
    n_features : int
        Columns that it takes.
    name : str
        What an error calls it, instead of the name of its class.

    Raises
    ------
    OptionError
        When the head is not linear in its columns.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), ["low", "low", "high", "high"]
    >>> head = LogisticRegression().fit(X, y)
    >>> np.allclose(folded(head, "class", 1).outputs(X), head.predict_proba(X))
    True
    """
    try:
        with np.errstate(all="ignore"):
            own = _affine(head, kind, n_features)
            _check(own, head)
    except ValueError as error:  # ours, or that of a step which does not take any number
        raise _not_linear(name or _name(head), kind, reason_of(error)) from error
    return own


def refuse_unfoldable(head: Any, kind: str) -> None:
    """Refuse a head whose name says that it is not linear, or not always.

    Raises
    ------
    OptionError
    """
    if isinstance(head, str) and head not in (_OPEN, *_LINEAR[kind]):
        alone = "its scores are no weighted sums of the columns"
        stacked = "what it stacks, and so whether it is, depends on the rows"
        raise _not_linear(head, kind, stacked if head == "best" else alone)


def _not_linear(name: str, kind: str, reason: str) -> OptionError:
    return OptionError(
        f"the head {name} is not linear in the layers: {reason}. Linear are "
        f"{', '.join(_LINEAR[kind])}, and what of scikit-learn predicts from linear scores. Train "
        "with one of them."
    )


def _affine(head: Any, kind: str, n_features: int) -> Folded:
    """Read the map off zero and the unit vectors, some of them at a time."""
    ask = _asking(head, kind)
    intercept = ask(np.zeros((1, n_features)))[0]
    coef = np.empty((len(intercept), n_features))
    size = max(1, _VALUES_AT_ONCE // n_features)
    for start in range(0, n_features, size):
        columns = np.arange(start, min(start + size, n_features))
        steps = np.zeros((len(columns), n_features))
        steps[np.arange(len(columns)), columns] = 1
        coef[:, columns] = (ask(steps) - intercept).T
    classes = None if kind == "number" else np.asarray(head.classes_)
    return Folded(coef, intercept, classes, kind)


def _asking(head: Any, kind: str) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Say how a head is asked for the scores that may be linear."""
    if kind != "number" and not hasattr(head, "decision_function"):
        raise ValueError("it has no decision_function")

    def ask(X: NDArray[np.float64]) -> NDArray[np.float64]:
        given = head.predict(X) if kind == "number" else head.decision_function(X)
        scores = np.asarray(given, np.float64).reshape(len(X), -1)
        if kind != "class":
            return scores
        logits = two_columns(scores)
        return np.asarray(logits - logits.mean(axis=1, keepdims=True))

    return ask


def _check(own: Folded, head: Any) -> None:
    """Compare the map with the head on rows small and large, and where the head is in doubt."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(_TEST_ROWS, own.coef.shape[1]))
    rows *= np.logspace(-2, 3, _TEST_ROWS)[:, None]
    _compare(own, head, rows)
    scores = random.normal(size=(_TEST_ROWS, len(own.intercept)))
    _compare(own, head, _moved(rows, own, scores))


def _compare(own: Folded, head: Any, X: NDArray[np.float64]) -> None:
    size = np.abs(X) @ np.abs(own.coef).T + np.abs(own.intercept)
    off = np.abs(_asking(head, own.kind)(X) - own.scores(X))
    if not (off <= _ROUNDING * size.max(axis=1, keepdims=True)).all():
        scores = "predictions" if own.kind == "number" else "scores"
        raise ValueError(f"its {scores} are no weighted sums of the columns")
    if own.kind == "number":
        return
    found, wanted = own.outputs(X), np.asarray(head.predict_proba(X), np.float64)
    if found.shape != wanted.shape or not (np.abs(found - wanted) <= _ROUNDING).all():
        link = "softmax" if own.kind == "class" else "sigmoid"
        raise ValueError(f"its probabilities are not the {link} of its scores")


def _moved(
    rows: NDArray[np.float64], own: Folded, scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Move rows as little as gives them these scores, as far as any row has them."""
    missing = scores - own.scores(rows)
    steps = np.linalg.lstsq(own.coef, missing.T, rcond=_ROUNDING)[0]
    return np.asarray(rows + steps.T)


def _name(head: Any) -> str:
    own = head[-1] if hasattr(head, "named_steps") else head
    while isinstance(own, _WRAPPERS):
        own = own.estimator
    return type(own).__name__
