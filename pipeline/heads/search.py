"""Search: which fusion of layers serves a ridge best, without fitting any of them twice.

All fusions are scored on the same rows left out. The lowest loss wins; of the fusions that
cannot be told apart from it (their paired difference is within one standard error) the simplest
is taken whose loss is not above that of the last layer alone. So the search never does worse,
on rows left out, than the last layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import assert_all_finite, check_array

from pipeline.errors import InputError, UnknownNameError
from pipeline.heads.fused import FUSIONS, Fused, FusionTrials
from pipeline.heads.judging import Judge, error_of, mean_of
from pipeline.heads.layer_ridge import LayerRidgeClassifier, LayerRidgeRegressor
from pipeline.heads.looking import MOST_ROWS, Passes
from pipeline.heads.ridge_base import accepted
from pipeline.heads.sharing import Sharing
from pipeline.heads.solving import Fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.heads.ridge_rows import RidgeRows

__all__ = ["Ridge", "search_fusions", "search_passes"]

Ridge = LayerRidgeClassifier | LayerRidgeRegressor
Row = dict[str, Any]


def search_fusions(
    X: Any,
    y: Any,
    layer_slices: Mapping[str, slice],
    groups: Sequence[Any] | None = None,
    sample_weight: Any = None,
    *,
    fusions: Sequence[str] | None = None,
    class_weight: Any = None,
    random_state: int = 0,
) -> tuple[Ridge, list[Row]]:
    """Find the fusion that serves a ridge best.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        Layers side by side.
    y : array of shape (n_samples,)
        Floats are numbers, all else is classes; also 0/1 or numbers of shape (n_samples, k).
    layer_slices : dict of str to slice
        Columns of each layer, bottom to top: as `EmbeddingStore.matrix` gives them.
    groups : sequence of shape (n_samples,), optional
        Rows of one group leave together.
    sample_weight : array of shape (n_samples,), optional
    fusions : sequence of str, optional
        Try these alone: ``last``, ``single:LAYER``, ``forward``, ``average``, ``weighted``,
        ``concat``, ``evidence``, ``late`` or ``selection``.
    class_weight : {"balanced", None} or dict
    random_state : int

    Returns
    -------
    winner : LayerRidgeClassifier or LayerRidgeRegressor
        Fitted on ``X``; its ``fusion_`` and ``layers_`` say what won.
    table : list of dict
        A row for each fusion, the winner's first, then by loss: ``fusion``, ``layers``, ``by``
        (``"loo"``, or ``"cv"`` where labels choose columns), ``accuracy``, ``log_loss`` and
        ``log_loss_se`` (or ``r2``, ``mse`` and ``mse_se``), ``seconds``, and ``tied``: whether
        it cannot be told apart from the lowest loss, as the winner cannot.

    Raises
    ------
    InputError
        As `LayerRidgeClassifier.fit`.
    UnknownNameError
        For a fusion or layer that does not exist.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat(["elk", "owl"], 30)
    >>> X = rng.normal(size=(60, 5))
    >>> X[y == "owl", 3:] += 4
    >>> winner, table = search_fusions(X, y, {"low": slice(0, 3), "high": slice(3, 5)})
    >>> losses = {row["fusion"]: row["log_loss"] for row in table}
    >>> winner.fusion_ == table[0]["fusion"], losses[winner.fusion_] <= losses["last"]
    (True, True)
    """
    X = check_array(X, dtype=accepted(X), ensure_all_finite=False)
    y = np.asarray(y)
    if len(X) != len(y):
        raise InputError(f"X has {len(X)} rows, but y has {len(y)}: give one label for each row.")
    assert_all_finite(y, input_name="y")
    return search_passes(
        lambda: iter([X]),
        y,
        layer_slices,
        X.shape[1],
        groups,
        sample_weight,
        is_class=y.dtype.kind != "f" and y.ndim == 1,
        fusions=fusions,
        class_weight=class_weight,
        random_state=random_state,
    )


def search_passes(
    passes: Passes,
    y: NDArray[Any],
    layer_slices: Mapping[str, slice],
    n_features: int,
    groups: Sequence[Any] | None = None,
    sample_weight: Any = None,
    *,
    is_class: bool,
    fusions: Sequence[str] | None = None,
    class_weight: Any = None,
    cv: Any = None,
    random_state: int = 0,
    most: int = MOST_ROWS,
    everywhere: bool = True,
    sharing: Sharing | None = None,
) -> tuple[Ridge, list[Row]]:
    """Search on data that need not be in memory at once; parameters as for `search_fusions`.

    Parameters
    ----------
    passes : callable
        Starts a new pass over the rows of ``X``.
    n_features : int
        Columns of ``X``.
    is_class : bool
        Whether ``y`` holds classes, of whatever type.
    cv : list of (train rows, test rows), optional
        The rows of one test side leave together, instead of those of one group.
    most, everywhere, sharing
        As for `LayerRidgeClassifier.fit_passes`.
    """
    head = _unfitted(is_class, layer_slices, class_weight, random_state).set_params(cv=cv)
    head.n_features_in_ = n_features
    table: list[Row] = []

    def solve(rows: RidgeRows, judge: Judge, layers: dict[str, tuple[int, int]]) -> Fit:
        seed = int(np.random.default_rng(random_state).integers(2**31))
        trials = FusionTrials(rows, layers, judge, scaling=head.scaling, random_state=seed)
        tried = _known(fusions, trials.names())
        ranked, tied = _ranked([trials.attempt(name) for name in tried], judge)
        table.extend(_row(one, judge, tied=one.fusion in tied) for one in ranked)
        head.fusion_, head.layers_ = ranked[0].fusion, ranked[0].layers
        return ranked[0].fit(rows, judge, list(layers))

    head.fit_passes(
        passes, y, sample_weight, groups,
        solve=solve, most=most, everywhere=everywhere, sharing=sharing,
    )  # fmt: skip
    return head, table


def _unfitted(
    is_class: bool, layer_slices: Mapping[str, slice], class_weight: Any, random_state: int
) -> Ridge:
    shared: dict[str, Any] = {"penalties": "uniform", "random_state": random_state}
    if not is_class:
        return LayerRidgeRegressor(layer_slices, **shared)
    return LayerRidgeClassifier(
        layer_slices, class_weight=class_weight, calibration="matrix", **shared
    )


def _known(fusions: Sequence[str] | None, every: list[str]) -> Sequence[str]:
    """Refuse a fusion that nobody knows."""
    fusions = [fusions] if isinstance(fusions, str) else fusions
    for name in fusions or ():
        kind, colon, _ = name.partition(":")
        if kind not in FUSIONS or (kind == "single") != bool(colon):
            raise UnknownNameError("fusion", name, [*every, "single:LAYER"])
    return fusions or every


def _ranked(tried: Sequence[Fused], judge: Judge) -> tuple[list[Fused], set[str]]:
    """Put the winner first and the others by loss; name those that are tied with the lowest."""
    by_loss = sorted(tried, key=lambda one: np.nan_to_num(one.verdict.loss, nan=np.inf))
    best = by_loss[0]
    tied = [one for one in by_loss if _is_tie(one, best, judge)]
    last = next((one.verdict.loss for one in tried if one.fusion == "last"), np.inf)
    simple = sorted(tied, key=lambda one: FUSIONS.index(one.fusion.partition(":")[0]))
    winner = next((one for one in simple if not one.verdict.loss > last), best)
    return [winner, *(one for one in by_loss if one is not winner)], {one.fusion for one in tied}


def _is_tie(one: Fused, best: Fused, judge: Judge) -> bool:
    """Whether the mean difference of the rows' losses is within one standard error, or rounding."""
    if one is best:
        return True
    difference = one.verdict.losses - best.verdict.losses
    error = error_of(difference, judge.weight)
    rounding = 1e-9 * abs(best.verdict.loss)
    return error is None or not mean_of(difference, judge.weight) > error + rounding


def _row(one: Fused, judge: Judge, *, tied: bool) -> Row:
    own = {"fusion": one.fusion, "layers": list(one.layers), "by": one.by}
    seconds = round(one.seconds, 3)
    return own | judge.figures(one.verdict, one.scores) | {"seconds": seconds, "tied": tied}
