"""Labels on their way into a cache: every column of the source, as `Column`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.cache import Column
from pipeline.errors import InputError
from pipeline.samples import SampleSet, Target

__all__ = ["SPLIT", "same_columns", "stored_columns"]

SPLIT = "split"
"""Column of a given split."""


def stored_columns(samples: SampleSet) -> dict[str, Column]:
    """Give every column with its kind; one whose kind cannot be decided is kept as text.

    A given split stands in the column ``split``.
    """
    columns = {name: _column(samples, name) for name in samples.columns}
    if samples.split is not None:
        columns[SPLIT] = Column.of("", samples.split)
    return columns


def same_columns(ours: Mapping[str, Column], theirs: Mapping[str, Column]) -> bool:
    """Whether two sets of columns say the same."""
    return list(ours) == list(theirs) and all(
        ours[name].kind == theirs[name].kind
        and np.array_equal(
            ours[name].values, theirs[name].values, equal_nan=ours[name].values.dtype.kind == "f"
        )
        for name in ours
    )


def _column(samples: SampleSet, name: str) -> Column:
    try:
        target = Target.decide(name, samples.columns[name], ids=samples.ids)
    except InputError:
        cells = samples.stored_columns()[name]
        kind = "number" if getattr(cells, "dtype", None) == np.float64 else ""
        return Column.of(kind, cells)
    return Column.of(target.kind, target.values)
