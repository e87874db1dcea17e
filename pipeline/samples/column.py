"""Columns of labels: cells as Python gives them, and as a cache keeps them.

A column is a 1-D object array of cells. A cell is None (missing), a str, a bool, an int,
a finite or infinite float, or a tuple of str (several labels). NaN and ``""`` are missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

__all__ = ["Column", "clean_column", "stored_column"]

Column = NDArray[np.object_]

_EXACT_IN_FLOAT64 = 2**53


def clean_column(cells: Iterable[Any]) -> Column:
    """Make a column of anything that gives cells one by one.

    Parameters
    ----------
    cells : iterable
        A list, an array, a pandas or polars series. Lists, tuples and sets in it are cells
        of several labels; bytes are read as UTF-8, a decimal as a float, anything else
        that is neither text nor a number by its ``str``.

    Raises
    ------
    InputError
        For an array of more than one dimension.

    Examples
    --------
    >>> clean_column(["owl", "", None, float("nan"), np.int64(3)]).tolist()
    ['owl', None, None, None, 3]
    """
    shape = getattr(cells, "shape", (0,))
    if len(shape) != 1:
        raise InputError(
            f"a column of labels has the shape {tuple(shape)}, but must have one dimension. "
            "Give one value for each row, and one column for each target."
        )
    cleaned = [_cell(cell) for cell in cells]
    column = np.empty(len(cleaned), dtype=object)
    column[:] = cleaned
    return column


def stored_column(column: Column) -> Column | NDArray[np.float64]:
    """Give a column as a cache keeps it: float64 (NaN missing), or text (``""`` missing).

    Numbers become float64 unless an integer would lose digits; all else becomes text,
    several labels joined by ``|`` (none at all: ``"|"``).

    Examples
    --------
    >>> stored_column(clean_column([1, None, 2])).tolist()
    [1.0, nan, 2.0]
    >>> stored_column(clean_column([("red", "big"), None, ()])).tolist()
    ['big|red', '', '|']
    """
    present = [cell for cell in column if cell is not None]
    if present and all(_fits_float64(cell) for cell in present):
        return np.array([math.nan if cell is None else cell for cell in column], dtype=np.float64)
    return np.array([_text(cell) for cell in column], dtype=object)


def _cell(cell: Any) -> Any:
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    elif isinstance(cell, np.generic):
        cell = cell.item()
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "backslashreplace")
    if isinstance(cell, str):
        return str(cell) or None
    if isinstance(cell, bool | int):
        return cell
    if isinstance(cell, float | Decimal):
        return None if math.isnan(cell) else float(cell)
    if isinstance(cell, list | tuple | set | frozenset):
        return tuple(sorted({str(label) for label in cell}))
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):  # pandas' missing values
        return None
    return str(cell)


def _fits_float64(cell: Any) -> bool:
    if isinstance(cell, bool):
        return False
    return isinstance(cell, float) or (isinstance(cell, int) and abs(cell) <= _EXACT_IN_FLOAT64)


def _text(cell: Any) -> str:
    if isinstance(cell, tuple):
        return "|".join(cell) or "|"
    return "" if cell is None else str(cell)
