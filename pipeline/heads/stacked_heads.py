"""StackedHeads: heads that learn by themselves, weighed by what each of them brings."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, is_regressor
from sklearn.utils.validation import check_is_fitted, validate_data

from pipeline.fusion import resolve_slices
from pipeline.heads.judging import Judge, NumberJudge, Verdict, error_of, mean_of
from pipeline.heads.labels import Labels, checked_weight
from pipeline.heads.looking import MOST_ROWS, Passes, checked, left_together
from pipeline.heads.members import Line
from pipeline.heads.random_features import RandomFeatures, usual_components
from pipeline.heads.ridge_base import accepted
from pipeline.heads.search import search_passes
from pipeline.heads.stacking import stack_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LOGISTIC", "RANDOM", "Member", "StackedHeads"]

_log = logging.getLogger(__name__)

RANDOM, LOGISTIC = "random features", "logistic"


@dataclass(frozen=True, eq=False)
class Member:
    """One that is stacked: its scores of new rows, and of rows that it has not seen."""

    line: Line
    scores: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Stacked:
    """Some members stacked."""

    weights: dict[str, float]
    scores: NDArray[np.float64]
    verdict: Verdict


class StackedHeads(BaseEstimator):
    """What both share: members that learn by themselves, and what each of them brings."""

    fusion_ = "late"

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit; parameters as for `LayerRidgeClassifier.fit`."""
        checks = {"dtype": accepted(X), "ensure_all_finite": False}
        X, y = validate_data(self, X, y, y_numeric=is_regressor(self), **checks)
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
            is_class=labels.classes is not None,
            everywhere=False, most=most, **shared,
        )  # fmt: skip
        n_components = self.n_components or usual_components(len(y))
        features = RandomFeatures(
            n_components, layer_slices=slices, random_state=self.random_state
        ).fit_passes(passes, weight)
        self.random_features_: RandomFeatures | None = features
        curved = self._ridge(penalties="uniform", scaling="trace", **shared)
        curved.n_features_in_ = n_components
        curved.fit_passes(
            lambda: map(features.transform, passes()),
            y, sample_weight, groups, most=most, everywhere=False,
        )  # fmt: skip
        members = {"ridge": self._member(ridge), RANDOM: self._member(curved)}
        self._more(members, passes, labels, groups, most)
        numbers = np.arange(len(y))
        for family in families:
            numbers[family] = family[0]
        self._stack(members, labels.judge, numbers)
        return self

    def _stack(
        self, members: Mapping[str, Member], judge: Judge, groups: NDArray[np.int64]
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
        self.scored_by_ = "cv" if LOGISTIC in self.members_ else "loo"
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
            random = self.random_features_ if name == RANDOM else None
            scores += weight * self.lines_[name].scores(random.transform(X) if random else X)
        return scores

    def narrowed(self, layers: Sequence[str]) -> Self:
        """Give a copy without what is not needed to predict; it takes all layers."""
        own = copy(self)
        if RANDOM not in own.members_:
            own.random_features_ = None
        return own

    def _weighing(self) -> dict[str, Any]:
        return {}

    def _more(
        self,
        members: dict[str, Member],
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

    def _member(self, ridge: Any) -> Member:
        raise NotImplementedError

    def _settle(self, scores: NDArray[np.float64], judge: Any, groups: NDArray[np.int64]) -> None:
        """Make more of the stacked scores, where there is more in them."""


def _listed(losses: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
