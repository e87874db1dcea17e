"""Labels as ridge takes them: columns to regress on, weights, and a judge of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from pipeline.errors import InputError
from pipeline.heads.inner import classes_of
from pipeline.heads.judging import ClassJudge, Judge, NumberJudge

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Labels", "checked_weight", "class_labels", "number_labels"]


@dataclass(frozen=True, eq=False)
class Labels:
    """What rows are fitted to.

    Parameters
    ----------
    Y : array of shape (n_samples, n_outputs)
        Indicators of classes (float32, which holds them exactly), or numbers (float64).
    weight : array of shape (n_samples,)
    judge : Judge
        Of all rows.
    classes : array of shape (n_classes,), optional
    """

    Y: NDArray[np.floating]
    weight: NDArray[np.float64]
    judge: Judge
    classes: NDArray[Any] | None = None


def class_labels(
    y: NDArray[Any],
    weight: NDArray[np.float64],
    families: Sequence[NDArray[np.int64]],
    class_weight: Any = None,
    classes: NDArray[Any] | None = None,
) -> Labels:
    """Read classes.

    A row that is alone in its class is not judged: a fit without it knows nothing of the class.
    Where the classes are known beforehand, these may be rows of one of them.

    Raises
    ------
    InputError
        For fewer than two classes, or a class that lies in one family alone.
    """
    known = classes is not None
    if classes is None:
        classes, codes = classes_of(y)
    else:
        unknown = sorted(set(np.unique(y).tolist()) - set(classes.tolist()), key=str)
        if unknown:
            raise InputError(
                f"y has the class {unknown[0]!r}, but the first call knew only "
                f"{', '.join(map(repr, classes.tolist()))}. Name all classes there: classes=[...]."
            )
        codes = np.searchsorted(classes, y)
    if class_weight is not None:
        by_class = compute_class_weight(class_weight, classes=classes, y=y)
        if not (np.isfinite(by_class) & (by_class >= 0)).all():
            raise InputError(
                f"class_weight is {class_weight!r}, but must hold finite numbers that are not "
                "negative."
            )
        weight = weight * by_class[codes]
    sizes = np.bincount(codes, weight > 0, minlength=len(classes))
    if not known and (sizes > 0).sum() < 2:
        raise InputError(
            f"y has only one class, {classes.tolist()[int(sizes.argmax())]!r}, in rows with a "
            "weight above 0: at least two are needed."
        )
    for family in families:
        inside = np.bincount(codes[family], weight[family] > 0, minlength=len(classes))
        whole = np.flatnonzero((inside == sizes) & (sizes > 1))
        if len(whole):
            raise InputError(
                f"class {classes.tolist()[whole[0]]!r} lies in one group alone (its "
                f"{int(sizes[whole[0]])} rows): without the group nothing is known of it. Label "
                "rows of the class in another group, leave the class out, or give no groups."
            )
    judge = ClassJudge(codes, np.where(sizes[codes] > 1, weight, 0))
    return Labels(np.eye(len(classes), dtype=np.float32)[codes], weight, judge, classes)


def number_labels(y: NDArray[Any], weight: NDArray[np.float64]) -> Labels:
    """Read numbers, one or several a row.

    Raises
    ------
    InputError
        For a number that is not finite.
    """
    Y = np.asarray(y, np.float64).reshape(len(y), -1)
    bad = np.argwhere(~np.isfinite(Y))
    if len(bad):
        raise InputError(
            f"y has NaN or infinity in row {bad[0, 0]}, but must be a finite number: leave out "
            "rows without one."
        )
    return Labels(Y, weight, NumberJudge(Y, weight))


def checked_weight(weight: Any, n_samples: int) -> NDArray[np.float64]:
    """Take weights of rows; 1 where none are given.

    A weight of 2 counts as two rows, and weights that add up to 1 as a single one.

    Raises
    ------
    InputError
        For another number of weights, a negative or missing one, or none above 0.
    """
    if weight is None:
        return np.ones(n_samples)
    values = np.asarray(weight, np.float64)
    if values.ndim == 0:
        values = np.full(n_samples, float(values))
    if values.shape != (n_samples,):
        raise InputError(
            f"sample_weight.shape == {values.shape}, expected {(n_samples,)}: give one weight "
            "for each row."
        )
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        raise InputError(
            f"sample_weight is {values[bad[0]]:g} in row {bad[0]}, but must be a finite number "
            "that is not negative. 0 leaves a row out."
        )
    if not values.any():
        raise InputError(
            "every weight in sample_weight is zero: there is nothing to fit. Give one row more."
        )
    return values
