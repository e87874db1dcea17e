"""Rows of a store: read once for all tasks, or piece by piece where they do not fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.heads import Problem
from pipeline.memory import shown_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.cache import EmbeddingStore
    from pipeline.samples import Target
    from pipeline.training.memory import MemoryPlan

__all__ = ["Task", "pieces_of", "problems_of", "rows_of_all"]

_log = logging.getLogger(__name__)
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Task:
    """A target, and the rows of it that are trained on.

    Parameters
    ----------
    target : Target
    rows : int array, ascending
        All of them have a label.
    """

    target: Target
    rows: NDArray[np.int64]


def rows_of_all(tasks: Iterable[Task]) -> NDArray[np.int64]:
    """Give the rows that any task has, ascending."""
    return reduce(np.union1d, [task.rows for task in tasks])


def problems_of(
    store: EmbeddingStore,
    layers: Sequence[str],
    groups: Sequence[Any] | None,
    tasks: Mapping[str, Task],
    plan: MemoryPlan,
) -> Callable[[Task], Problem]:
    """Read the rows of all tasks, and give what makes a problem of one.

    Parameters
    ----------
    store : EmbeddingStore
    layers : sequence of str
        Bottom to top.
    groups : sequence, optional
        Group of each row of the store.
    tasks : dict of str to Task
    plan : MemoryPlan
    """
    names = list(layers)
    _, slices = store.matrix(names, rows=slice(0, 0))
    every = rows_of_all(tasks.values())
    X = store.matrix(names, every)[0] if plan.in_memory else None
    if X is None:
        _log.info(
            "the rows are read in pieces: at once they would take more than %s",
            shown_bytes(plan.limit),
        )

    def problem_of(task: Task) -> Problem:
        rows = task.rows
        own = X if X is None or len(rows) == len(every) else X[np.searchsorted(every, rows)]
        return Problem(
            own,
            slices,
            task.target.subset(rows),
            groups=None if groups is None else [groups[row] for row in rows],
            digests=[bytes(digest) for digest in store.inputs["digest"][rows]],
            pieces=partial(pieces_of, store, names, rows) if X is None else None,
            most_rows=plan.most,
        )

    return problem_of


def pieces_of(
    store: EmbeddingStore, layers: Sequence[str], rows: NDArray[np.int64]
) -> Iterator[NDArray[np.float32]]:
    """Read rows piece by piece, and let each go."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield store.matrix(list(layers), rows[start : start + _ROWS_AT_ONCE])[0]
        store.release()
