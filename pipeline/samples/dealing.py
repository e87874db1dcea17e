"""Dealing rows to sides: whole components at a time, every class in proportion.

A component is a set of rows that must stay together: equal content, or one group.
scikit-learn's splitters either know groups or keep a fraction, and none holds a class of
one row back; a greedy deal over shuffled components does both.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.samples.column import clean_column
from pipeline.samples.target import Target

__all__ = ["Component", "components", "folds", "hold_out"]


@dataclass(frozen=True)
class Component:
    """Rows that stay together.

    Parameters
    ----------
    rows : tuple of int
        Their positions.
    sizes : Counter
        Rows of each stratum; those without a label are in none.
    """

    rows: tuple[int, ...]
    sizes: Counter[int]


def components(
    names: Sequence[str],
    strata: Sequence[int | None],
    keys: Iterable[Sequence[Any]],
    seed: int,
    rows: Iterable[int],
) -> list[Component]:
    """Join rows that share a key, and shuffle what comes out by the seed.

    The place of a component in the shuffle depends on the seed and on its first name alone:
    new rows elsewhere do not move it.

    Parameters
    ----------
    names : sequence of str
        Names of all rows.
    strata : sequence of int or None
        Class of each row; None for a row that counts nowhere.
    keys : iterable of sequences
        Columns; rows with an equal value in one of them are joined. ``""`` joins nothing.
    seed : int
        Another seed, another order.
    rows : iterable of int
        The rows to deal.
    """
    chosen = list(rows)
    joined = _Joined(len(names))
    for column in keys:
        first: dict[Any, int] = {}
        for row in chosen:
            if column[row] != "":
                joined.join(row, first.setdefault(column[row], row))
    members: dict[int, list[int]] = {}
    for row in chosen:
        members.setdefault(joined.root(row), []).append(row)

    def place(root: int) -> bytes:
        first_name = min(names[row] for row in members[root])
        return hashlib.blake2b(f"{seed}/{first_name}".encode("utf-8", "backslashreplace")).digest()

    return [
        Component(
            tuple(members[root]),
            Counter(s for row in members[root] if (s := strata[row]) is not None),
        )
        for root in sorted(members, key=place)
    ]


def hold_out(parts: Sequence[Component], fraction: float) -> list[int]:
    """Choose the rows to hold out: a share of each class, whole components at a time.

    A class gives as many rows as it should, to within the size of its components, and
    always keeps one row. A class whose components are all too large gives its best-fitting
    one, so that it can be tested at all.
    """
    total: Counter[int] = Counter()
    pieces: Counter[int] = Counter()
    for part in parts:
        total.update(part.sizes)
        pieces.update(part.sizes.keys())
    wanted = _shares({s: total[s] for s in sorted(total) if pieces[s] > 1}, fraction)
    taken: Counter[int] = Counter()
    held: list[Component] = []

    def spare(part: Component) -> bool:
        return all(taken[s] + size < total[s] for s, size in part.sizes.items())

    def gain(part: Component) -> int:
        return sum(
            abs(wanted.get(s, 0) - taken[s]) - abs(wanted.get(s, 0) - taken[s] - size)
            for s, size in part.sizes.items()
        )

    def take(part: Component) -> None:
        held.append(part)
        taken.update(part.sizes)

    for part in parts:
        if gain(part) > 0 and spare(part):
            take(part)
    for stratum, share in wanted.items():
        open_ones = parts if share and not taken[stratum] else ()
        fitting = [part for part in open_ones if stratum in part.sizes and spare(part)]
        if fitting:
            take(max(fitting, key=gain))
    return [row for part in held for row in part.rows]


def folds(
    target: Target,
    n_splits: int,
    *,
    seed: int,
    groups: Iterable[Any] | None = None,
    digests: Sequence[bytes] | None = None,
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Deal the labelled rows to folds, for choosing among heads inside the training rows.

    Rows of equal content or of one group stay together and each class is spread evenly. A
    class smaller than ``n_splits`` is tested in fewer folds; one that would be missing from
    the training side of a fold stays there, so a class of one row is always trained on.

    Parameters
    ----------
    target : Target
        The labels; rows without one are on neither side.
    n_splits : int
        Folds asked for. Fewer come back where there are fewer components.
    seed : int
        Another seed, other folds.
    groups : sequence, optional
        A value for each row; a missing value is a group of its own.
    digests : sequence of bytes, optional
        Content digests of the rows.

    Returns
    -------
    list of (train rows, test rows)
        Sorted positions; empty if nothing can be tested.

    Examples
    --------
    >>> target = Target.decide("label", ["a", "a", "b", "b", "c"])
    >>> [test.tolist() for _, test in folds(target, 2, seed=0)]
    [[0, 2], [1, 3]]
    """
    present = np.flatnonzero(target.present).tolist()
    strata = target.encode().tolist() if target.kind == "class" else [0] * len(target)
    contents = None if digests is None else [bytes(digest).hex() for digest in digests]
    kinship = None if groups is None else ["" if g is None else g for g in clean_column(groups)]
    keys = [column for column in (contents, kinship) if column is not None]
    names = [f"{row:09}" for row in range(len(target))] if contents is None else contents
    dealt = _deal(components(names, strata, keys, seed, present), n_splits)
    pairs = []
    for test in filter(None, (_testable(fold, dealt) for fold in dealt)):
        train = sorted(set(present) - set(test))
        if train:
            pairs.append((np.array(train, dtype=np.int64), np.array(test, dtype=np.int64)))
    return pairs


class _Joined:
    """Disjoint sets of rows; the smallest row stands for its set."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, row: int) -> int:
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._parent[high] = low


def _shares(counts: dict[int, int], fraction: float) -> dict[int, int]:
    """Round each class's share so that they add up: at least one each if there is room."""
    if not counts or not fraction:
        return {}
    total = max(1, round(fraction * sum(counts.values())))
    least = 1 if total >= len(counts) else 0
    shares = {s: max(least, int(fraction * count)) for s, count in counts.items()}

    def lack(stratum: int) -> float:
        return fraction * counts[stratum] - shares[stratum]

    while (missing := total - sum(shares.values())) != 0:
        step = 1 if missing > 0 else -1
        open_ones = [s for s in counts if step > 0 or shares[s] > least]
        shares[max(open_ones, key=lambda s: step * lack(s))] += step
    return shares


def _deal(parts: Sequence[Component], n_splits: int) -> list[list[Component]]:
    """Give each component, the largest first, to the fold that has least of its classes."""
    dealt: list[list[Component]] = [[] for _ in range(min(n_splits, len(parts)))]
    tallies: list[Counter[int]] = [Counter() for _ in dealt]
    sizes = [0] * len(dealt)

    for part in sorted(parts, key=lambda part: -len(part.rows)):
        fold = min(
            range(len(dealt)), key=lambda f: (sum(tallies[f][s] for s in part.sizes), sizes[f], f)
        )
        dealt[fold].append(part)
        tallies[fold].update(part.sizes)
        sizes[fold] += len(part.rows)
    return dealt


def _testable(fold: Sequence[Component], dealt: Sequence[Sequence[Component]]) -> list[int]:
    """Rows of a fold, less the components that hold the last rows of a class."""
    trained: Counter[int] = Counter()
    for other in dealt:
        if other is not fold:
            trained.update(s for part in other for s in part.sizes)
    rows: list[int] = []
    for part in fold:
        if all(trained[s] for s in part.sizes):
            rows.extend(part.rows)
        else:
            trained.update(part.sizes)
    return sorted(rows)
