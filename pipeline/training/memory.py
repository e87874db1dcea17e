"""Whether the training rows fit into memory, and how many are kept if they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import OptionError
from pipeline.heads import MOST_ROWS
from pipeline.memory import free_memory, parse_bytes, shown_bytes, used_memory

__all__ = ["MemoryPlan", "plan_memory"]

_MATRICES = 12
"""Matrices of n_features squared, in float64, that a search holds at once at its peak."""
_COPIES = 4
"""Of the rows that are looked at, in float32: as they are, turned, and being chosen from."""
_CHUNK_COPIES = 4
_SCORES = 3
"""Of every row for every class, in float64."""
_CHUNK_ROWS = 4096
_FEWEST = 1_000
_KEPT = 3
"""Of the largest decomposition, and of the rows turned by it, for the targets that share them."""


@dataclass(frozen=True)
class MemoryPlan:
    """How training goes over the rows.

    Parameters
    ----------
    in_memory : bool
        All of them at once.
    most : int
        Rows that are kept to be left out.
    limit : int
        Bytes that may be used.
    side_by_side : int
        Targets that are trained at the same time.
    keeping : bool
        Whether targets of the same rows keep for each other what they have in common.
    """

    in_memory: bool
    most: int
    limit: int
    side_by_side: int = 1
    keeping: bool = False


def plan_memory(
    n_samples: int,
    n_features: int,
    n_outputs: int,
    memory: str | None,
    *,
    parts: Sequence[int] = (),
    side_by_side: int = 1,
    keeping: bool = False,
) -> MemoryPlan:
    """Plan for a matrix of float32.

    What makes training several targets faster is done without where it does not fit.

    Parameters
    ----------
    n_samples, n_features, n_outputs : int
    memory : str, optional
        Limit of the whole process, such as ``"8GB"``; half of what is free when not given.
    parts : sequence of int
        Rows of each part that is copied out, where not all targets have all labels.
    side_by_side, keeping
        As for `MemoryPlan`, where there is memory for it.

    Raises
    ------
    OptionError
        When not even the moments of one block fit, saying what is needed.
    """
    limit = used_memory() + free_memory() // 2 if memory is None else parse_bytes(memory)
    room = limit - used_memory()
    row = 4 * n_features
    moments = 8 * _MATRICES * n_features**2 + 8 * _SCORES * n_samples * n_outputs
    looked_at = row * _COPIES * min(n_samples, MOST_ROWS)
    each = moments + looked_at
    if n_samples < 2 * n_features:
        # Few rows are worked on in float64, in the space of the rows.
        each = min(each, 8 * n_samples * (4 * n_features + 6 * min(n_samples, n_features)))
    kept = 8 * _KEPT * (n_features * min(n_samples, n_features) + looked_at // (4 * _COPIES))
    copied = row * max(parts, default=0)
    for beside, keep in ((side_by_side, keeping), (1, keeping), (1, False)):
        if row * n_samples + beside * (each + copied + keep * kept) <= room:
            return MemoryPlan(True, MOST_ROWS, limit, beside, keep)
    at_once = row * n_samples + each + copied
    fixed = moments + row * _CHUNK_COPIES * _CHUNK_ROWS
    in_pieces = fixed + row * _COPIES * min(n_samples, _FEWEST)
    needed = used_memory() + min(in_pieces, at_once)
    if needed > limit:
        raise OptionError(
            f"memory is {shown_bytes(limit)}, but the moments of {n_features} features, one "
            f"block of rows and this program need {shown_bytes(needed)}. Give more, like "
            f"--memory {needed / 1e9 + 0.1:.1f}GB, or fewer layers: --layers."
        )
    most = (limit - used_memory() - fixed) // (row * _COPIES)
    return MemoryPlan(False, int(min(most, MOST_ROWS)), limit)
