"""The best of several heads: ridge, ridge on random features and logistic regression, stacked.

Ridge over layers is hard to beat where there are many features for the rows. With few features
for many rows, or classes that no plane parts, something more is needed; what it is worth is
measured on rows left out, and what is worth nothing is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin

from pipeline.heads.calibration import matrix_calibration
from pipeline.heads.judging import ClassJudge
from pipeline.heads.labels import Labels, class_labels, number_labels
from pipeline.heads.layer_ridge import LayerRidgeClassifier, LayerRidgeRegressor
from pipeline.heads.looking import Passes
from pipeline.heads.members import Line, fit_logistic
from pipeline.heads.stacked_heads import LOGISTIC, Member, StackedHeads
from pipeline.heads.temperature import softmax, two_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BestClassifier", "BestRegressor"]

_log = logging.getLogger(__name__)

_TINY = 1e-15


class BestClassifier(ClassifierMixin, StackedHeads):
    """Ridge, ridge on random features and logistic regression, stacked on rows left out.

    Each member's scores of rows that it has not seen (left out one by one, or by folds) are
    weighted for the lowest log-loss, no weight being negative; a member whose absence costs no
    more than one standard error is dropped.

    Parameters
    ----------
    layer_slices : dict of str to slice, or None
        Columns of each layer; None takes ``X`` for one layer.
    n_components : int, optional
        Random features; as many as there are rows, between 512 and 4,096, when not given.
    class_weight : {"balanced", None} or dict
    cv : list of (train rows, test rows), optional
        Folds of your own: the rows of one test side leave together.
    random_state : int

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    members_ : dict of str to float
        Weight of each member that is left.
    brought_ : dict of str to float
        Log-loss that would be added without it; empty where one member is left.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> y = np.where((X**2).sum(axis=1) > 1.4, "out", "in")  # no line parts a ring
    >>> head = BestClassifier(n_components=64).fit(X, y)
    >>> "random features" in head.members_, bool(head.score(X, y) > 0.9)
    (True, True)
    """

    def __init__(
        self,
        layer_slices: Mapping[str, slice] | None = None,
        *,
        n_components: int | None = None,
        class_weight: Any = None,
        cv: Any = None,
        random_state: int = 0,
    ) -> None:
        self.layer_slices = layer_slices
        self.n_components = n_components
        self.class_weight = class_weight
        self.cv = cv
        self.random_state = random_state

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Give logits: one for two classes (of the second), else one a class."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Give class probabilities: shape (n_samples, n_classes)."""
        return softmax(self._logits(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the likeliest class: shape (n_samples,)."""
        best = self._logits(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def _logits(self, X: Any) -> NDArray[np.float64]:
        scores = self._stacked_scores(X)
        return scores if self.calibration_ is None else self.calibration_.of(scores)

    def _weighing(self) -> dict[str, Any]:
        return {"class_weight": self.class_weight}

    def _labels(
        self, y: Any, weight: NDArray[np.float64], families: Any
    ) -> tuple[NDArray[Any], Labels]:
        labels = class_labels(y, weight, families, self.class_weight)
        self.classes_, self.centre_ = np.asarray(labels.classes), np.zeros(labels.Y.shape[1])
        return y, labels

    def _ridge(self, **parameters: Any) -> LayerRidgeClassifier:
        return LayerRidgeClassifier(**parameters)

    def _member(self, ridge: LayerRidgeClassifier) -> Member:
        coef, intercept = two_columns(ridge.coef_.T), two_columns(ridge.intercept_[None])[0]
        line = Line(coef / ridge.temperature_, intercept / ridge.temperature_)
        logits = np.log(np.clip(ridge.loo_proba_, _TINY, 1))
        return Member(line, _centred(logits))

    def _more(
        self,
        members: dict[str, Member],
        passes: Passes,
        labels: Labels,
        groups: Sequence[Any] | None,
        most: int,
    ) -> None:
        n_samples = len(labels.Y)
        if n_samples > most:
            _log.info(
                "best: logistic regression is left out: it takes all rows at once, and %d are "
                "more than %d",
                n_samples,
                most,
            )
            return
        own = self.random_features_
        assert own is not None
        line, logits = fit_logistic(
            np.concatenate(list(passes())),
            labels,
            own.offset_,
            own.factor_,
            groups=groups,
            cv=self.cv,
            start=members["ridge"].line,
            random_state=self.random_state,
        )
        members[LOGISTIC] = Member(line, _centred(logits))

    def _settle(
        self, scores: NDArray[np.float64], judge: ClassJudge, groups: NDArray[np.int64]
    ) -> None:
        self.calibration_ = matrix_calibration(_centred(scores), judge, groups, self.random_state)


class BestRegressor(RegressorMixin, StackedHeads):
    """Ridge and ridge on random features, stacked on rows left out.

    Parameters
    ----------
    layer_slices, n_components, cv, random_state
        As for `BestClassifier`.

    Attributes
    ----------
    members_, brought_ : dict of str to float
        As for `BestClassifier`, by squared error.

    Examples
    --------
    >>> X = np.linspace(-1, 1, 100)[:, None]
    >>> head = BestRegressor(n_components=64).fit(X, np.abs(X[:, 0]))
    >>> list(head.members_), head.predict([[0.5]]).round(1)
    (['random features'], array([0.5]))
    """

    def __init__(
        self,
        layer_slices: Mapping[str, slice] | None = None,
        *,
        n_components: int | None = None,
        cv: Any = None,
        random_state: int = 0,
    ) -> None:
        self.layer_slices = layer_slices
        self.n_components = n_components
        self.cv = cv
        self.random_state = random_state

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Predict: shape (n_samples,)."""
        return self._stacked_scores(X)[:, 0]

    def _labels(
        self, y: Any, weight: NDArray[np.float64], families: Any
    ) -> tuple[NDArray[Any], Labels]:
        labels = number_labels(y, weight)
        self.centre_ = np.average(labels.Y, axis=0, weights=weight)
        return labels.Y[:, 0], labels

    def _ridge(self, **parameters: Any) -> LayerRidgeRegressor:
        return LayerRidgeRegressor(**parameters)

    def _member(self, ridge: LayerRidgeRegressor) -> Member:
        intercept = np.atleast_1d(ridge.intercept_) - self.centre_
        line = Line(np.atleast_2d(ridge.coef_).T, intercept)
        return Member(line, np.asarray(ridge.loo_prediction_)[:, None] - self.centre_)


def _centred(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Take off what all classes of a row share: it changes no probability."""
    return np.asarray(logits - logits.mean(axis=1, keepdims=True), np.float64)
