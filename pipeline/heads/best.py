"""The best of several heads: ridge, ridge on random features and logistic regression, stacked.

Ridge over layers is hard to beat where there are many features for the rows. With few features
for many rows, or classes that no plane parts, something more is needed; what it is worth is
measured on rows left out, and what is worth nothing is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from pipeline.fusion import resolve_slices
from pipeline.heads.calibration import matrix_calibration
from pipeline.heads.judging import ClassJudge, Judge, NumberJudge, Verdict, error_of, mean_of
from pipeline.heads.labels import Labels, checked_weight, class_labels, number_labels
from pipeline.heads.layer_ridge import LayerRidgeClassifier, LayerRidgeRegressor
from pipeline.heads.looking import MOST_ROWS, Passes, checked, left_together
from pipeline.heads.members import Line, fit_logistic
from pipeline.heads.random_features import RandomFeatures
from pipeline.heads.ridge_base import accepted
from pipeline.heads.search import search_passes
from pipeline.heads.stacking import stack_weights
from pipeline.heads.temperature import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BestClassifier", "BestRegressor"]

_log = logging.getLogger(__name__)

_RANDOM, _LOGISTIC = "random features", "logistic"
_FEWEST, _MOST = 512, 4096
"""Random features: as many as there are rows, between these."""
_TINY = 1e-15


@dataclass(frozen=True, eq=False)
class _Member:
    """One that is stacked: its scores of new rows, and of rows that it has not seen."""

    line: Line
    scores: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Stacked:
    """Some members stacked."""

    weights: dict[str, float]
    scores: NDArray[np.float64]
    verdict: Verdict


class _Best(BaseEstimator):
    """What both share: members that learn by themselves, and what each of them brings."""

    fusion_ = "late"

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit; parameters as for `LayerRidgeClassifier.fit`."""
        checks = {"dtype": accepted(X), "ensure_all_finite": False}
        X, y = validate_data(self, X, y, y_numeric=isinstance(self, BestRegressor), **checks)
        return self.fit_passes(lambda: iter([X]), y, sample_weight, groups)

    def fit_passes(
        self,
        passes: Passes,
        y: NDArray[Any],
        sample_weight: Any = None,
        groups: Sequence[Any] | None = None,
        *,
        most: int = MOST_ROWS,
    ) -> Self:
        """Fit on rows that come in passes; parameters as for `LayerRidgeClassifier`."""
        layers = resolve_slices(self.layer_slices, self.n_features_in_, whole=True)
        slices = {name: slice(*span) for name, span in layers.items()}
        passes = checked(passes, layers)
        families = left_together(groups, self.cv, len(y))
        weight = checked_weight(sample_weight, len(y))
        y, labels = self._labels(y, weight, families)
        shared = {"cv": self.cv, "random_state": self.random_state} | self._weighing()
        ridge, _ = search_passes(
            passes, y, slices, self.n_features_in_, groups, sample_weight,
            is_class=labels.classes is not None, most=most, **shared,
        )  # fmt: skip
        n_components = self.n_components or int(np.clip(len(y), _FEWEST, _MOST))
        features = RandomFeatures(
            n_components, layer_slices=slices, random_state=self.random_state
        ).fit_passes(passes, weight)
        self.random_features_: RandomFeatures | None = features
        curved = self._ridge(penalties="uniform", scaling="trace", **shared)
        curved.n_features_in_ = n_components
        curved.fit_passes(
            lambda: map(features.transform, passes()),
            y, sample_weight, groups, most=most,
        )  # fmt: skip
        members = {"ridge": self._member(ridge), _RANDOM: self._member(curved)}
        self._more(members, passes, labels, groups, most)
        numbers = np.arange(len(y))
        for family in families:
            numbers[family] = family[0]
        self._stack(members, labels.judge, numbers)
        return self

    def _stack(
        self, members: Mapping[str, _Member], judge: Judge, groups: NDArray[np.int64]
    ) -> None:
        """Weigh the members, and drop one after the other that brings nothing."""
        seen = [np.isfinite(one.scores).all(axis=1) for one in members.values()]
        rows = np.flatnonzero(np.all(seen, axis=0))
        judge = judge.subset(rows)
        scores = {name: one.scores[rows] for name, one in members.items()}
        alone = {
            name: self._stacked({name: own}, judge).verdict.loss for name, own in scores.items()
        }
        together, self.brought_ = self._stacked(scores, judge), dict[str, float]()
        while len(together.weights) > 1:
            gains = self._gains(together, scores, judge)
            self.brought_ = {name: mean_of(gain, judge.weight) for name, gain in gains.items()}
            least = min(self.brought_, key=lambda name: self.brought_[name])
            if self.brought_[least] > (error_of(gains[least], judge.weight) or 0):
                break
            kept = {name: scores[name] for name in together.weights if name != least}
            together, self.brought_ = self._stacked(kept, judge), {}
        self.members_ = together.weights
        self.lines_ = {name: members[name].line for name in self.members_}
        self.loo_figures_ = judge.figures(together.verdict, together.scores + self.centre_)
        self.scored_by_ = "cv" if _LOGISTIC in self.members_ else "loo"
        self._settle(together.scores, judge, groups[rows])
        self._say(alone, together.verdict.loss)

    def _gains(
        self, together: _Stacked, scores: Mapping[str, NDArray[np.float64]], judge: Judge
    ) -> dict[str, NDArray[np.float64]]:
        """Say what every row would lose without each of the members."""
        gains = {}
        for name in together.weights:
            rest = {other: scores[other] for other in together.weights if other != name}
            gains[name] = self._stacked(rest, judge).verdict.losses - together.verdict.losses
        return gains

    def _stacked(self, scores: Mapping[str, NDArray[np.float64]], judge: Judge) -> _Stacked:
        if isinstance(judge, NumberJudge):
            judge = replace(judge, truth=judge.truth - self.centre_)
        weights = stack_weights(list(scores.values()), judge)
        named = dict(zip(scores, weights.tolist(), strict=True))
        stacked = np.asarray(sum(named[name] * own for name, own in scores.items()))
        return _Stacked(named, stacked, judge.verdict(stacked, 1.0))

    def _say(self, alone: Mapping[str, float], together: float) -> None:
        said = [f"best: loss on rows left out of {_listed(alone)}, together {together:.3g}"]
        if self.brought_:
            said.append(f"each brings {_listed(self.brought_)}")
        dropped = [name for name in alone if name not in self.members_]
        if dropped:
            said.append(f"dropped, since it brings nothing: {', '.join(dropped)}")
        _log.info("%s", "; ".join(said))

    def _stacked_scores(self, X: Any) -> NDArray[np.float64]:
        """Score new rows: array of shape (n_samples, n_outputs)."""
        check_is_fitted(self, "members_")
        X = validate_data(self, X, dtype=accepted(X), reset=False)
        scores = np.tile(np.asarray(self.centre_, np.float64), (len(X), 1))
        for name, weight in self.members_.items():
            random = self.random_features_ if name == _RANDOM else None
            scores += weight * self.lines_[name].scores(random.transform(X) if random else X)
        return scores

    def narrowed(self, layers: Sequence[str]) -> Self:
        """Give a copy without what is not needed to predict; it takes all layers."""
        own = copy(self)
        if _RANDOM not in own.members_:
            own.random_features_ = None
        return own

    def _weighing(self) -> dict[str, Any]:
        return {}

    def _more(
        self,
        members: dict[str, _Member],
        passes: Passes,
        labels: Labels,
        groups: Sequence[Any] | None,
        most: int,
    ) -> None:
        """Add members that only some targets have."""

    def _labels(
        self, y: Any, weight: NDArray[np.float64], families: Any
    ) -> tuple[NDArray[Any], Labels]:
        raise NotImplementedError

    def _ridge(self, **parameters: Any) -> Any:
        raise NotImplementedError

    def _member(self, ridge: Any) -> _Member:
        raise NotImplementedError

    def _settle(self, scores: NDArray[np.float64], judge: Any, groups: NDArray[np.int64]) -> None:
        """Make more of the stacked scores, where there is more in them."""


def _listed(losses: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())


class BestClassifier(ClassifierMixin, _Best):
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
        if self.calibration_ is None:
            return scores
        return np.asarray(scores @ self.calibration_ + self.calibration_offset_)

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

    def _member(self, ridge: LayerRidgeClassifier) -> _Member:
        coef, intercept = ridge.coef_.T, ridge.intercept_
        if coef.shape[1] == 1:
            coef, intercept = np.hstack([-coef, coef]) / 2, np.hstack([-intercept, intercept]) / 2
        line = Line(coef / ridge.temperature_, intercept / ridge.temperature_)
        logits = np.log(np.clip(ridge.loo_proba_, _TINY, 1))
        return _Member(line, _centred(logits))

    def _more(
        self,
        members: dict[str, _Member],
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
        members[_LOGISTIC] = _Member(line, _centred(logits))

    def _settle(
        self, scores: NDArray[np.float64], judge: ClassJudge, groups: NDArray[np.int64]
    ) -> None:
        found = matrix_calibration(_centred(scores), judge, groups, self.random_state)
        self.calibration_: NDArray[np.float64] | None = None if found is None else found[0]
        self.calibration_offset_: NDArray[np.float64] | None = None if found is None else found[1]


class BestRegressor(RegressorMixin, _Best):
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

    def _member(self, ridge: LayerRidgeRegressor) -> _Member:
        intercept = np.atleast_1d(ridge.intercept_) - self.centre_
        line = Line(np.atleast_2d(ridge.coef_).T, intercept)
        return _Member(line, np.asarray(ridge.loo_prediction_)[:, None] - self.centre_)


def _centred(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Take off what all classes of a row share: it changes no probability."""
    return np.asarray(logits - logits.mean(axis=1, keepdims=True), np.float64)
