"""Looking: which rows are left out, which leave together, and the passes over the data.

Every row that is looked at gets the exact prediction of a fit without it; of many rows some
are looked at, since more would choose the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import InputError, OptionError
from pipeline.heads.moments import Moments, cuda_device
from pipeline.heads.ridge_rows import RidgeRows
from pipeline.heads.sharing import Sharing

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MOST_ROWS",
    "Passes",
    "Prepared",
    "checked",
    "families_of",
    "left_together",
    "looked_at",
    "parted_families",
    "prepared_rows",
    "refuse_infinite",
    "refuse_whole_families",
]

MOST_ROWS = 20_000

Passes = Callable[[], Iterator["NDArray[np.floating]"]]
"""Starts a new pass over the rows of ``X``, in their order and in pieces of any size."""


def families_of(groups: Sequence[Any] | None, n_samples: int) -> list[NDArray[np.int64]]:
    """Give the rows of every group that has several; a row without a group stands alone.

    Raises
    ------
    InputError
        When the groups are of another number of rows, or one spans them all.
    """
    if groups is None:
        return []
    if len(groups) != n_samples:
        raise InputError(
            f"groups has {len(groups)} values, but X has {n_samples} rows. Give one for each row."
        )
    members: dict[Any, list[int]] = {}
    for row, group in enumerate(groups):
        if not isinstance(group, Hashable):
            raise InputError(
                f"the group of row {row} is {group!r}, but must be one value, such as a text or a "
                "number."
            )
        if not _is_missing(group):
            members.setdefault(group, []).append(row)
    if len(members) == 1 and n_samples > 1 and len(next(iter(members.values()))) == n_samples:
        raise InputError(
            f"all {n_samples} rows are of the group {next(iter(members))!r}: without it nothing "
            "is left to fit. Give groups that split the rows, or none."
        )
    return [np.array(rows) for rows in members.values() if len(rows) > 1]


def left_together(groups: Sequence[Any] | None, cv: Any, n_samples: int) -> list[NDArray[np.int64]]:
    """Give rows that leave together: those of one test side of ``cv``, else of one group."""
    if cv is None:
        return families_of(groups, n_samples)
    if not isinstance(cv, list | tuple):
        raise OptionError(
            f"cv is {cv!r}, but must be a list of (train rows, test rows): list(splitter.split(X, "
            "y))."
        )
    return [np.asarray(test) for _, test in cv if len(test) > 1]


def refuse_whole_families(
    families: Sequence[NDArray[np.int64]], weight: NDArray[np.float64]
) -> None:
    """Refuse a family outside of which no row has a weight: nothing would be left to fit."""
    for family in families:
        if np.count_nonzero(weight) == np.count_nonzero(weight[family]):
            raise InputError(
                f"{len(family)} rows leave together, and no other row has a weight: without them "
                "nothing is left to fit. Give groups or folds that split the rows, or none."
            )


def parted_families(
    codes: NDArray[np.int64], families: Sequence[Any]
) -> tuple[list[Any], list[int]]:
    """Part the families that hold a whole class: without them nothing would be known of it.

    Parameters
    ----------
    codes : int array of shape (n_samples,)
        Class of each row.
    families : sequence of shape (n_samples,)

    Returns
    -------
    families : list of int
        Rows of a family that is parted have numbers of their own.
    alone : list of int
        Classes of several rows that lay in one family.

    Examples
    --------
    >>> parted_families(np.array([0, 0, 1, 1]), ["a", "a", "b", "c"])
    ([3, 4, 1, 2], [0])
    """
    own = np.unique(np.asarray(families), return_inverse=True)[1]
    alone = []
    for code in np.unique(codes).tolist():
        of_class = np.flatnonzero(codes == code)
        if len(of_class) > 1 and len(np.unique(own[of_class])) == 1:
            alone.append(code)
            rows = np.flatnonzero(own == own[of_class[0]])
            own[rows] = own.max() + 1 + np.arange(len(rows))
    return own.tolist(), alone


def looked_at(
    n_samples: int, families: Sequence[NDArray[np.int64]], random_state: int, most: int = MOST_ROWS
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Choose rows to look at, whole families of them, and renumber the families.

    Returns
    -------
    rows : int array, ascending
    families : list of int arrays
        Places among these rows.
    """
    if n_samples <= most:
        return np.arange(n_samples), list(families)
    rng = np.random.default_rng(random_state)
    family = np.full(n_samples, -1)
    for number, members in enumerate(families):
        family[members] = number
    heads = np.concatenate([np.flatnonzero(family < 0), *[own[:1] for own in families]])
    chosen: list[NDArray[np.int64]] = []
    room = most
    for head in rng.permutation(heads):
        own = np.array([head]) if family[head] < 0 else families[family[head]]
        if len(own) > room:
            if chosen:
                continue
            raise InputError(
                f"a group has {len(own)} rows, and at most {most} rows are looked at. Give "
                "smaller groups, or none."
            )
        chosen.append(own)
        room -= len(own)
        if not room:
            break
    rows = np.sort(np.concatenate(chosen))
    together = [np.searchsorted(rows, own) for own in chosen if len(own) > 1]
    return rows, together


@dataclass(frozen=True, eq=False)
class Prepared:
    """Rows ready to be fitted, and which of all rows are looked at."""

    rows: RidgeRows
    looked_at: NDArray[np.int64]


def prepared_rows(
    passes: Passes,
    Y: NDArray[np.floating],
    weight: NDArray[np.float64],
    families: Sequence[NDArray[np.int64]],
    *,
    random_state: int,
    most: int = MOST_ROWS,
    sharing: Sharing | None = None,
) -> Prepared:
    """Go over the data once, and keep what ridge needs of it.

    Rows fewer than twice the features are all kept, in float64: they are the smaller problem.
    Else the moments of all rows are taken, and some rows are kept to be looked at. What another
    target of the same rows has left in ``sharing`` is taken from there.
    """
    n_samples = len(Y)
    sharing = sharing or Sharing(keeping=False)
    known = sharing.moments.get(weight.tobytes())
    rows, together = looked_at(n_samples, families, random_state, most)
    pieces: list[NDArray[np.floating]] = []
    moments: Moments | None = None
    start = 0
    for X in passes():
        own = slice(start, start + len(X))
        if moments is None and not (n_samples < 2 * X.shape[1] and len(rows) == n_samples):
            moments = (
                Moments.starting_at(X.mean(axis=0, dtype=np.float64), Y.mean(axis=0))
                if known is None
                else known.of_features(Y.mean(axis=0))
            )
            device = cuda_device()
        if moments is not None:
            moments.add(X, Y[own], weight[own], device=device, outputs_only=known is not None)
        first, last = np.searchsorted(rows, [own.start, own.stop])
        inside = rows[first:last] - start
        pieces.append(X if len(inside) == len(X) else X[inside])
        start += len(X)
    if start != n_samples:
        raise InputError(
            f"a pass gave {start} rows, but there are {n_samples} labels: every pass must give "
            "all rows anew, in the same order."
        )
    X = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    if moments is None:
        X = X.astype(np.float64)
    else:
        sharing.moments[weight.tobytes()] = moments
    kept = sharing.of_rows(weight, rows)
    return Prepared(RidgeRows(X, Y[rows], weight[rows], together, moments, kept), rows)


def checked(passes: Passes, layers: Mapping[str, tuple[int, int]]) -> Passes:
    """Refuse values that are not finite in every pass."""

    def every() -> Iterator[NDArray[np.floating]]:
        start = 0
        for X in passes():
            refuse_infinite(X, layers, start)
            start += len(X)
            yield X

    return every


def refuse_infinite(
    X: NDArray[np.floating], layers: Mapping[str, tuple[int, int]], row: int
) -> None:
    """Refuse values that are not finite, naming layer and row.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
    layers : dict of str to (int, int)
        Start and stop column of each layer.
    row : int
        Number of the first row.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(X.sum(dtype=np.float64)):
            return
    bad = np.argwhere(~np.isfinite(X))
    if not len(bad):
        return
    place, column = bad[0].tolist()
    layer = next((name for name, (a, b) in layers.items() if a <= column < b), "of no name")
    what = "NaN" if np.isnan(X[place, column]) else "infinity"
    raise InputError(
        f"X has NaN or infinity: {what} in layer {layer!r}, row {row + place}, column {column}. "
        "Every feature must be a finite number: leave the row out, or embed it again."
    )


def _is_missing(group: Any) -> bool:
    """Whether a row has no group: None, NaN, ``""``, or what pandas says instead."""
    if group is None or (isinstance(group, str) and not group):
        return True
    return type(group).__name__ in ("NAType", "NaTType") or (
        isinstance(group, float | np.floating) and bool(np.isnan(group))
    )
