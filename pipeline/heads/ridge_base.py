"""What layer ridges share: passes over the data, and what is kept of a fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from pipeline.errors import InputError
from pipeline.fusion import resolve_slices, slices_of
from pipeline.heads.judging import Judge
from pipeline.heads.labels import Labels, checked_weight
from pipeline.heads.layer_scaling import layer_factors, layer_penalties, penalised
from pipeline.heads.linear_map import LinearMap
from pipeline.heads.looking import (
    MOST_ROWS,
    Passes,
    Prepared,
    checked,
    left_together,
    prepared_rows,
    refuse_infinite,
    refuse_whole_families,
)
from pipeline.heads.ridge_rows import RidgeRows
from pipeline.heads.sharing import Sharing
from pipeline.heads.solving import Fit, solved
from pipeline.heads.stream import Stream
from pipeline.processors import one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Chunks", "LayerRidge", "accepted"]

Chunks = Callable[[], Iterator[tuple[Any, Any]]]
Layers = dict[str, tuple[int, int]]
Solve = Callable[[RidgeRows, Any, Layers], Fit]

_FLOATS = (np.float64, np.float32)
_FEW_ROWS = 1_000


class LayerRidge(BaseEstimator):
    """Base of classifier and regressor, which read labels and tell what scores mean."""

    scored_by_ = "loo"
    stream_: Stream | None

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        y : array of shape (n_samples,)
        sample_weight : array of shape (n_samples,), optional
            A weight of 2 counts as two rows: relative weights should have the mean 1.
        groups : sequence of shape (n_samples,), optional
            Rows of one group leave together; a row without one (None, NaN, ``""``) alone.

        Raises
        ------
        InputError
            For values that are not finite (naming layer and row), negative weights, groups
            that hold all rows or a whole class, layers that overlap or leave gaps.
        """
        X, y = self._validated(X, y, reset=True)
        return self.fit_passes(lambda: iter([X]), y, sample_weight, groups)

    def fit_chunks(self, chunks: Chunks, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit on data that need not be in memory at once.

        Parameters
        ----------
        chunks : callable
            Starts a new pass: an iterator of ``(X, y)``, the same rows in the same order each
            time. There is a pass for the labels, one for the moments, and over more than
            20,000 rows a third.
        sample_weight, groups
            Of all rows, as for `fit`.
        """
        widths: set[int] = set()
        labels: list[NDArray[Any]] = []
        for X, y in chunks():
            if np.ndim(X) != 2 or not 0 < len(X) == len(y):
                raise InputError(
                    f"chunk {len(labels)} has X of the shape {np.shape(X)} and y of the shape "
                    f"{np.shape(y)}, but must have some rows and a label for each."
                )
            widths.add(np.shape(X)[1])
            labels.append(np.asarray(y))
        if len(widths) != 1:
            raise InputError(
                f"chunks gave {'no rows' if not widths else f'rows of widths {sorted(widths)}'}, "
                "but must give (X, y) of one width, anew at every call."
            )
        (self.n_features_in_,) = widths
        y = np.concatenate(labels)
        return self.fit_passes(lambda: (_floats(X) for X, _ in chunks()), y, sample_weight, groups)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Add rows to those of the calls before; `fit` forgets them.

        Their moments are added up, and at most 20,000 of the rows are kept to be left out.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        y : array of shape (n_samples,)
        sample_weight : array of shape (n_samples,), optional
        """
        first = getattr(self, "stream_", None) is None
        X, y = self._validated(X, y, reset=first)
        layers = resolve_slices(self.layer_slices, self.n_features_in_, whole=True)
        refuse_infinite(X, layers, 0)
        labels = self._labels(y, checked_weight(sample_weight, len(X)), (), known=True)
        stream = getattr(self, "stream_", None) or Stream.starting(X, labels.Y, self._seed())
        stream.add(X, labels.Y, labels.weight)
        self.stream_, prepared = stream, stream.prepared()
        self.fusion_ = self._called()
        judge = self._judge(prepared.rows.Y, prepared.rows.weight)
        fit = self._solved(prepared.rows, judge, layers)
        self._settle(fit, prepared.rows, judge, layers)
        return self

    def fit_passes(
        self,
        passes: Passes,
        y: NDArray[Any],
        sample_weight: Any = None,
        groups: Sequence[Any] | None = None,
        *,
        solve: Solve | None = None,
        most: int = MOST_ROWS,
        everywhere: bool = True,
        sharing: Sharing | None = None,
    ) -> Self:
        """Fit on labels that are known and rows that come in passes.

        Parameters
        ----------
        passes : callable
            Starts a new pass over the rows of ``X``.
        y, sample_weight, groups
            Of all rows, as for `fit`.
        solve : callable, optional
            Fits ``(rows, judge, layers)``; the ridge that the parameters say when not given.
        most : int
            Rows that are kept to be left out.
        everywhere : bool
            Whether to go over the data once more, for the rows that are not kept.
        sharing : Sharing, optional
            What other targets of the same rows have left, and what is left for others.
        """
        self.stream_ = None
        layers = resolve_slices(self.layer_slices, self.n_features_in_, whole=True)
        families = left_together(groups, self.cv, len(y))
        labels = self._labels(y, checked_weight(sample_weight, len(y)), families)
        refuse_whole_families(families, labels.weight)
        passes = checked(passes, layers)
        self.fusion_ = self._called()
        with one_thread(len(y) <= _FEW_ROWS):
            prepared = prepared_rows(
                passes, labels.Y, labels.weight, families,
                random_state=self._seed(), most=most, sharing=sharing,
            )  # fmt: skip
            here = labels.judge.subset(prepared.looked_at)
            fit = (solve or self._solved)(prepared.rows, here, layers)
            self._settle(fit, prepared.rows, here, layers)
        if len(prepared.looked_at) < len(y):
            again = passes if everywhere else lambda: iter(())
            self._keep_scores(_elsewhere(fit, prepared, again, labels, families))
        return self

    def narrowed(self, layers: Sequence[str]) -> Self:
        """Give a copy that takes the columns of some layers only, and holds no training rows.

        Parameters
        ----------
        layers : sequence of str
            Those of which any column is used, in their order.
        """
        own = copy(self)
        spans = resolve_slices(self.layer_slices, self.n_features_in_)
        widths = {name: spans[name][1] - spans[name][0] for name in layers}
        own.layer_slices, own.n_features_in_ = slices_of(widths), sum(widths.values())
        own.coef_ = self.coef_[..., np.concatenate([np.arange(*spans[name]) for name in layers])]
        own._forget()
        return own

    def widened(self, layer_slices: Mapping[str, slice]) -> Self:
        """Give a copy that takes more layers, and finds its own among them.

        Parameters
        ----------
        layer_slices : dict of str to slice
            Columns of every layer of the wider ``X``; those of new layers count nothing.
        """
        own = copy(self)
        own.layer_slices = dict(layer_slices)
        own.n_features_in_ = max(one.stop for one in layer_slices.values())
        own.coef_ = np.zeros((*self.coef_.shape[:-1], own.n_features_in_))
        for name, span in resolve_slices(self.layer_slices, self.n_features_in_).items():
            own.coef_[..., layer_slices[name]] = self.coef_[..., slice(*span)]
        return own

    def _solved(self, rows: RidgeRows, judge: Judge, layers: Layers) -> Fit:
        fusion = LinearMap(slice(None), layer_factors(rows, layers, self.scaling))
        penalties = layer_penalties(rows, fusion, layers, self.penalties)
        found = solved(rows, penalised(fusion, layers, penalties), judge, self.alphas)
        strengths = dict(zip(layers, (found.alpha * penalties).tolist(), strict=True))
        offset = np.zeros(found.scores.shape[1])
        return Fit([(1.0, found)], offset, found.scores, found.verdict, strengths)

    def _settle(self, fit: Fit, rows: RidgeRows, judge: Judge, layers: Layers) -> None:
        """Keep what predictions need, and what is known of them."""
        self.alpha_, self.layer_penalties_ = fit.alpha, dict(fit.penalties)
        self.layer_importance_ = fit.importance(rows, layers)
        coef, intercept = fit.line(self.n_features_in_)
        self._keep_line(coef.T, intercept, fit.verdict.temperature)
        self.loo_figures_ = judge.figures(fit.verdict, fit.scores)
        self.loo_score_, loss, _ = self.loo_figures_.values()
        self._keep_loss(loss)
        self._keep_scores(fit.scores)
        self._calibrate(fit.scores, judge, rows.groups)

    def _called(self) -> str:
        return "evidence" if self.penalties == "evidence" else "concat"

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31))

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """Check rows and labels as scikit-learn does, but for values that are not finite."""
        raise NotImplementedError

    def _labels(
        self, y: Any, weight: NDArray[np.float64], families: Any, *, known: bool = False
    ) -> Labels:
        raise NotImplementedError

    def _judge(self, Y: NDArray[np.floating], weight: NDArray[np.float64]) -> Judge:
        raise NotImplementedError

    def _keep_line(
        self, coef: NDArray[np.float64], intercept: NDArray[np.float64], temperature: float
    ) -> None:
        raise NotImplementedError

    def _keep_loss(self, loss: float | None) -> None:
        raise NotImplementedError

    def _keep_scores(self, scores: NDArray[np.floating]) -> None:
        raise NotImplementedError

    def _forget(self) -> None:
        """Let go of what is known of single rows."""
        self.stream_ = None

    def _calibrate(self, scores: NDArray[np.floating], judge: Any, groups: Any) -> None:
        """Make more of the scores of rows left out, where there is more in them."""

    def _scores(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=accepted(X), reset=False)
        products = X @ self.coef_.T.astype(X.dtype)
        return np.asarray(products.astype(np.float64) + self.intercept_)


def _elsewhere(
    fit: Fit,
    prepared: Prepared,
    passes: Passes,
    labels: Labels,
    families: Sequence[NDArray[np.int64]],
) -> NDArray[np.float64]:
    """Score all rows left out, in one more pass; NaN for groups that were not looked at."""
    scores = np.full(labels.Y.shape, np.nan)
    start = 0
    for X in passes():
        rows = slice(start, start + len(X))
        scores[rows] = fit.left_out(X, labels.Y[rows], labels.weight[rows])
        start += len(X)
    for family in families:
        scores[family] = np.nan
    scores[prepared.looked_at] = fit.scores
    return scores


def accepted(X: Any) -> list[type]:
    """Types that ``X`` may keep: half precision is widened to single."""
    half = getattr(X, "dtype", None) == np.float16
    return [np.float32] if half else [np.float64, np.float32]


def _floats(X: Any) -> NDArray[np.floating]:
    return np.asarray(X, None if getattr(X, "dtype", None) in _FLOATS else accepted(X)[0])
