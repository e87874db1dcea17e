"""Inner cross-validation: folds inside the rows that a head is given, and their losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import has_fit_parameter

from pipeline.errors import InputError, OptionError
from pipeline.samples import Target, folds

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "class_loss",
    "classes_of",
    "fit_weighted",
    "inner_folds",
    "inner_rows",
    "no_weights",
    "number_loss",
    "part_of",
    "rows_of",
]

_MOST_ROWS = 4_000
"""Rows that inner folds are dealt from; more would choose the same."""
_TINY = 1e-15


def classes_of(y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Give the classes in their order, and the number of each row's.

    Raises
    ------
    InputError
        When there is only one.
    """
    check_classification_targets(y)
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            f"y has only one class, {classes.tolist()[0]!r}: at least two are needed. Label rows "
            "of another class, or leave this target out."
        )
    return classes, codes.astype(np.int64)


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
        target = Target.decide("y", np.zeros(len(y)), "number")  # only its length matters
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


def inner_rows(
    y: NDArray[Any],
    groups: Sequence[Any] | None,
    n_splits: int,
    *,
    cv: Any,
    random_state: Any,
    is_class: bool = True,
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Give the inner folds of a head: those of ``cv``, or of at most 4,000 rows dealt here.

    No row is tested whose class the other side lacks: nothing could be learned of it.
    """
    if cv is None:
        seed = int(check_random_state(random_state).randint(2**31))
        rows = part_of(y, _MOST_ROWS, seed, is_class)
        dealt = inner_folds(
            y[rows], n_splits, random_state=seed, groups=rows_of(groups, rows), is_class=is_class
        )
        pairs = [(rows[train], rows[test]) for train, test in dealt]
    else:
        pairs = [(np.asarray(train), np.asarray(test)) for train, test in cv]
    if not is_class:
        return [(train, test) for train, test in pairs if len(train) > 1]
    known = [(train, test[np.isin(y[test], y[train])]) for train, test in pairs]
    return [(train, test) for train, test in known if len(test) and len(np.unique(y[train])) > 1]


def rows_of(values: Any, rows: NDArray[np.int64]) -> Any:
    """Take rows of an array or of any sequence, or None of None."""
    if values is None or isinstance(values, np.ndarray):
        return None if values is None else values[rows]
    return [values[row] for row in rows]


def fit_weighted(estimator: Any, X: Any, y: Any, weight: Any, **others: Any) -> Any:
    """Fit, and give the weights on.

    Raises
    ------
    OptionError
        When there are weights, and the estimator cannot take any.
    """
    if weight is None:
        return estimator.fit(X, y, **others)
    if not has_fit_parameter(estimator, "sample_weight"):
        raise no_weights(estimator)
    return estimator.fit(X, y, sample_weight=weight, **others)


def no_weights(estimator: Any) -> OptionError:
    """Say that an estimator cannot weigh rows, and which heads can."""
    return OptionError(
        f"{type(estimator).__name__} cannot weigh rows, but sample_weight was given. Leave it "
        "out, or take a head that can: logistic, ridge, svm, forest, boosting, mlp or linear."
    )


def class_loss(fitted: Any, X: NDArray[np.floating], y: NDArray[Any], weight: Any = None) -> float:
    """Sum of the log-losses of a fitted head on rows of classes that it knows."""
    places = np.searchsorted(fitted.classes_, y)
    own = fitted.predict_proba(X)[np.arange(len(y)), places]
    losses = -np.log(np.clip(own, _TINY, 1))
    return float(losses.sum() if weight is None else losses @ weight)


def number_loss(
    fitted: Any, X: NDArray[np.floating], y: NDArray[np.floating], weight: Any = None
) -> float:
    """Sum of the squared errors of a fitted head."""
    losses = (fitted.predict(X) - y) ** 2
    return float(losses.sum() if weight is None else losses @ weight)
