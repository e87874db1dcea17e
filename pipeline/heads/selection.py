"""Selection of columns over all layers, in the manner of Head2Toe (Evci et al., 2022).

The columns with the greatest say in a ridge on all of them are kept, and fitted anew. Which
columns those are depends on the labels, so what it is worth is measured by cross-validation of
the choice and the fit together: rows left out of the fit alone would flatter it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.heads.inner import inner_folds
from pipeline.heads.judging import ClassJudge, Judge
from pipeline.heads.linear_map import LinearMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.heads.ridge_rows import RidgeRows

__all__ = ["selected"]

_SHARES = (0.1, 0.25, 0.5)
_FOLDS = 5


def selected(
    rows: RidgeRows, fusion: LinearMap, alpha: float, judge: Judge, random_state: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose columns.

    Parameters
    ----------
    rows : RidgeRows
    fusion : LinearMap
        Scaled columns to choose from.
    alpha : float
        Strength on all of them.
    judge : Judge
    random_state : int

    Returns
    -------
    columns : int array, ascending
    scores : array of shape (n_looked_at, n_outputs)
        Of every row by a choice and a fit without its fold.
    """
    places = np.arange(rows.X.shape[1])[fusion.columns]
    counts = [max(1, round(share * len(places))) for share in _SHARES]
    scores = np.tile(rows.y_mean, (len(counts), len(rows.X), 1))
    y = judge.codes if isinstance(judge, ClassJudge) else rows.Y[:, 0]
    folds = inner_folds(
        y,
        _FOLDS,
        random_state=random_state,
        groups=None if rows.groups is None else rows.groups.tolist(),
        is_class=isinstance(judge, ClassJudge),
    )
    for _, test in folds:
        rest = rows.without(test)
        strength = alpha * rest.total / rows.total
        order = _by_say(rest, fusion, strength)
        for number, count in enumerate(counts):
            own = np.sort(order[:count])
            part = LinearMap(places[own], fusion.factors[own])
            coef = rest.solve(part, strength)
            away = rows.X[test][:, part.columns] - rest.x_mean[part.columns]
            scores[number, test] = rest.y_mean + away @ coef
    losses = [judge.verdict(each).loss for each in scores]
    best = int(np.argmin(losses))
    order = _by_say(rows, fusion, alpha)
    return places[np.sort(order[: counts[best]])], scores[best]


def _by_say(rows: RidgeRows, fusion: LinearMap, alpha: float) -> NDArray[np.int64]:
    """Order columns by the variance of what they add to the scores, the greatest first."""
    coef = rows.solve(fusion, alpha)
    say = (coef**2).sum(axis=1) * rows.x_variance[fusion.columns]
    return np.argsort(-say, kind="stable")
