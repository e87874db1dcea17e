"""Inner cross-validation: folds inside the rows that a head is given, and their losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.samples import Target, folds

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["class_loss", "inner_folds", "number_loss", "part_of"]

_TINY = 1e-15


def inner_folds(
    y: NDArray[Any],
    n_splits: int,
    *,
    random_state: int,
    groups: Sequence[Any] | None = None,
    is_class: bool = True,
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Deal rows to folds: stratified for classes, groups kept together.

    Every class stays on the training side of every fold.
    """
    if is_class:
        _, codes = np.unique(y, return_inverse=True)
        target = Target.decide("y", [f"c{code}" for code in codes.ravel()], "class")
    else:
        target = Target.decide("y", np.zeros(len(y)), "number")
    return folds(target, n_splits, seed=random_state, groups=groups)


def part_of(y: NDArray[Any], most: int, random_state: int, is_class: bool) -> NDArray[np.int64]:
    """Choose at most ``most`` rows at random, at least two of each class that has them."""
    if len(y) <= most:
        return np.arange(len(y))
    order = np.random.default_rng(random_state).permutation(len(y))
    chosen = set(order[:most].tolist())
    if is_class:
        _, codes = np.unique(y, return_inverse=True)
        for code in range(codes.max() + 1):
            chosen.update(order[codes[order] == code][:2].tolist())
    return np.sort(np.fromiter(chosen, np.int64))


def class_loss(fitted: Any, X: NDArray[np.floating], y: NDArray[Any]) -> float:
    """Mean log-loss of a fitted head on rows of classes that it knows."""
    places = np.searchsorted(fitted.classes_, y)
    own = fitted.predict_proba(X)[np.arange(len(y)), places]
    return float(-np.log(np.clip(own, _TINY, 1)).mean())


def number_loss(fitted: Any, X: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Mean squared error of a fitted head."""
    return float(((fitted.predict(X) - y) ** 2).mean())
