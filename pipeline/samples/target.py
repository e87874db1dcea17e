"""Target: one column of labels whose kind is decided, once, here."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, UnknownNameError
from pipeline.samples.cell import DECIMAL
from pipeline.samples.column import Column, clean_column, stored_column

__all__ = ["Kind", "Target", "decide_kind"]

Kind = Literal["class", "multilabel", "number"]

_MOST_INTEGER_CLASSES = 20
_NAMED_CELLS = 5
# A leading zero makes a code (007), not a number.
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*|(?=\.\d))(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Target:
    """A column of labels: what is to be predicted, row by row.

    Parameters
    ----------
    name : str
        Name of the column; ``label`` for class folders.
    kind : {"class", "multilabel", "number"}
        What the values are.
    classes : tuple
        The labels, sorted, all of one type: text, int or bool. Text for
        ``multilabel``, empty for ``number``.
    values : ndarray of shape (n,)
        Labels or None (``class``), sorted tuples of labels or None (``multilabel``), float64
        with NaN for missing (``number``).

    Examples
    --------
    >>> target = Target.decide("species", ["owl", "elk", "", "owl"])
    >>> target.kind, target.classes, target.encode().tolist()
    ('class', ('elk', 'owl'), [1, 0, -1, 1])
    """

    name: str
    kind: Kind
    classes: tuple[Any, ...]
    values: NDArray[Any]

    @classmethod
    def decide(
        cls,
        name: str,
        column: Iterable[Any],
        kind: str | None = None,
        ids: Sequence[str] | None = None,
    ) -> Target:
        """Decide the kind of a column, and read its cells accordingly.

        Text is ``class``. Numbers, and text of which every cell is one, are ``class`` if
        all are integers with at most 20 values, else ``number``. ``multilabel`` comes only
        when asked. Text stays as it is written: ``007`` and ``1.0`` are labels of a class,
        and a column with ``007`` in it is no column of numbers. Integral floats are the
        labels 0, 1, 2, ... Bools are a class; a column of mixed types is a class of text.

        Parameters
        ----------
        name : str
            Name of the target.
        column : iterable
            Cells in any form that `clean_column` reads, a cache's columns included.
        kind : {"class", "multilabel", "number", ""}, optional
            The kind, where it is known. Several labels of one cell are joined by ``|``
            (or are a list); ``"|"`` alone is a row that has none of the labels.
        ids : sequence of str, optional
            Names of the rows, for error messages.

        Raises
        ------
        InputError
            For a cell that is no number under ``number``, an infinite number, a fraction
            under ``class``, or lists of labels without ``multilabel``.
        UnknownNameError
            For a kind that does not exist.
        """
        if kind and kind not in get_args(Kind):
            raise UnknownNameError("target kind", kind, get_args(Kind))
        cells = clean_column(column)
        rows = _Rows(name, ids)
        match kind or decide_kind(cells):
            case "number":
                return cls(name, "number", (), _numbers(cells, rows))
            case "multilabel":
                return cls(name, "multilabel", *_label_sets(cells))
            case _:
                return cls(name, "class", *_labels(cells, rows))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Rows that have a value: a mask of shape (n,)."""
        if self.kind == "number":
            return np.array(~np.isnan(self.values))
        return np.array([value is not None for value in self.values], dtype=bool)

    @property
    def labels(self) -> NDArray[Any]:
        """The classes as an array of their own dtype: index it with what `encode` gives."""
        return np.array(self.classes)

    @property
    def counts(self) -> dict[Any, int]:
        """Rows of each class, in the order of `classes`; empty for numbers."""
        if self.kind == "number":
            return {}
        values = [value for value in self.values if value is not None]
        if self.kind == "multilabel":
            values = [label for labels in values for label in labels]
        tally = Counter(values)
        return {label: tally[label] for label in self.classes}

    def encode(self) -> NDArray[np.int64]:
        """Position of each row's class in `classes`, -1 for missing: int64 of shape (n,).

        Raises
        ------
        InputError
            For a target of another kind.
        """
        self._must_be("class")
        places: dict[Any, int] = {label: place for place, label in enumerate(self.classes)}
        places[None] = -1
        return np.array([places[value] for value in self.values], dtype=np.int64)

    def indicator(self) -> NDArray[np.bool_]:
        """Which row has which label: bool of shape (n, classes); a missing row has none.

        Raises
        ------
        InputError
            For a target of another kind.

        Examples
        --------
        >>> Target.decide("tags", ["a|b", "b"], "multilabel").indicator().tolist()
        [[True, True], [False, True]]
        """
        self._must_be("multilabel")
        places = {label: place for place, label in enumerate(self.classes)}
        table = np.zeros((len(self), len(self.classes)), dtype=bool)
        for row, labels in enumerate(self.values):
            table[row, [places[label] for label in labels or ()]] = True
        return table

    def column(self) -> Column | NDArray[np.float64]:
        """Give the values as a cache keeps them; `decide` reads them back with this kind."""
        return self.values if self.kind == "number" else stored_column(self.values)

    def subset(self, rows: NDArray[Any]) -> Target:
        """Keep these rows (positions or a mask) and every class."""
        return dataclasses.replace(self, values=self.values[np.asarray(rows)])

    def describe(self) -> str:
        """Say kind, classes and missing values in one line.

        Examples
        --------
        >>> Target.decide("species", ["owl", "elk", "", "owl"]).describe()
        'species: class, 2 classes (smallest: elk, 1), 1 missing'
        >>> Target.decide("age", [1.5, 2.5]).describe()
        'age: number, 1.5 to 2.5'
        """
        missing = len(self) - int(self.present.sum())
        parts = [self.kind, self.spread()] + ([f"{missing} missing"] if missing else [])
        return f"{self.name}: {', '.join(parts)}"

    def spread(self) -> str:
        """Say what the values are: the classes with the smallest one, or the range."""
        if not self.present.any():
            return "no values"
        if self.kind == "number":
            return f"{np.nanmin(self.values):g} to {np.nanmax(self.values):g}"
        noun = ("class", "classes") if self.kind == "class" else ("label", "labels")
        number = len(self.classes)
        counted = f"{number} {noun[number != 1]}"
        if not number:
            return counted
        smallest, rows = min(self.counts.items(), key=lambda item: item[1])
        return f"{counted} (smallest: {smallest}, {rows})"

    def _must_be(self, kind: Kind) -> None:
        if self.kind != kind:
            raise InputError(
                f"target {self.name!r} is of kind {self.kind}, but {kind} is needed here. "
                f"Ask for it: Target.decide(..., kind={kind!r})."
            )


@dataclass(frozen=True)
class _Rows:
    """Names the rows of a target in error messages."""

    target: str
    ids: Sequence[str] | None

    def named(self, cells: Column, rows: Sequence[int]) -> str:
        def place(row: int) -> str:
            return self.ids[row] if self.ids is not None else f"row {row + 1}"

        shown = ", ".join(f"{cells[row]!r} ({place(row)})" for row in rows[:_NAMED_CELLS])
        more = len(rows) - _NAMED_CELLS
        return shown + (f" and {more} more" if more > 0 else "")


def decide_kind(cells: Column) -> Kind:
    """Decide what a column is that nobody has said anything about; see `Target.decide`."""
    present = [cell for cell in cells if cell is not None]
    if any(isinstance(cell, bool | tuple) for cell in present):
        return "class"
    if all(isinstance(cell, str) for cell in present):
        finite = [cell for cell in present if not _NOT_FINITE.fullmatch(cell)]
        if not finite or not all(_NUMBER.fullmatch(cell) for cell in finite):
            return "class"
        if len(finite) < len(present):
            return "number"
    elif any(isinstance(cell, str) for cell in present):
        return "class"
    integers = all(float(cell).is_integer() for cell in present if not _beyond_float(cell))
    return "class" if integers and len(set(present)) <= _MOST_INTEGER_CLASSES else "number"


def _beyond_float(cell: Any) -> bool:
    return isinstance(cell, int) and abs(cell) > 2**1023


def _numbers(cells: Column, rows: _Rows) -> NDArray[np.float64]:
    bad = [row for row, cell in enumerate(cells) if not _is_number(cell)]
    if bad:
        verb = "cell is no number" if len(bad) == 1 else "cells are no numbers"
        raise InputError(
            f"target {rows.target!r} should be a number, but {len(bad)} {verb}: "
            f"{rows.named(cells, bad)}. Accepted: decimal numbers with a point, empty for "
            "missing. Mend these cells, or ask for the kind class."
        )
    values = np.array([_float(cell) for cell in cells], dtype=np.float64)
    _refuse_infinite(values, cells, rows)
    return values


def _is_number(cell: Any) -> bool:
    if isinstance(cell, str):
        text = cell.strip()
        return bool(DECIMAL.fullmatch(text) or _NOT_FINITE.fullmatch(text))
    return not isinstance(cell, tuple)


def _float(cell: Any) -> float:
    if cell is None:
        return math.nan
    return math.inf if _beyond_float(cell) else float(cell)


def _refuse_infinite(values: NDArray[np.float64], cells: Column, rows: _Rows) -> None:
    infinite = np.flatnonzero(np.isinf(values)).tolist()
    if infinite:
        raise InputError(
            f"target {rows.target!r} has infinite numbers: {rows.named(cells, infinite)}. "
            "Only finite numbers can be predicted: mend these cells, or empty them."
        )


def _labels(cells: Column, rows: _Rows) -> tuple[tuple[Any, ...], Column]:
    """Classes and labels of one type: bools, ints, or else text."""
    present = [cell for cell in cells if cell is not None]
    lists = [row for row, cell in enumerate(cells) if isinstance(cell, tuple)]
    if lists:
        raise InputError(
            f"target {rows.target!r} has several labels in a cell: {rows.named(cells, lists)}. "
            "A class has one label a row: ask for the kind multilabel."
        )
    if all(isinstance(cell, bool) for cell in present):
        as_label: type = bool
    elif any(isinstance(cell, str | bool) for cell in present):
        as_label = str
    else:
        _refuse_infinite(np.array([_float(cell) for cell in cells]), cells, rows)
        _refuse_fractions(cells, rows)
        as_label = int
    values = np.array([None if cell is None else as_label(cell) for cell in cells], dtype=object)
    return tuple(sorted({value for value in values if value is not None})), values


def _refuse_fractions(cells: Column, rows: _Rows) -> None:
    """Refuse what scikit-learn takes for no class: predictions of it could not be compared."""
    broken = [
        row for row, cell in enumerate(cells) if cell is not None and not float(cell).is_integer()
    ]
    if broken:
        raise InputError(
            f"target {rows.target!r} should be a class, but has fractions: "
            f"{rows.named(cells, broken)}. Classes are text or whole numbers: ask for the kind "
            "number, or give these values as text."
        )


def _label_sets(cells: Column) -> tuple[tuple[str, ...], Column]:
    values = np.empty(len(cells), dtype=object)
    for row, cell in enumerate(cells):
        values[row] = None if cell is None else _label_set(cell)
    known = {label for labels in values if labels is not None for label in labels}
    return tuple(sorted(known)), values


def _label_set(cell: Any) -> tuple[str, ...]:
    """Split ``a|b``; a label in a list cannot hold ``|``, or the cache would split it."""
    text = "|".join(cell) if isinstance(cell, tuple) else str(cell)
    return tuple(sorted({label.strip() for label in text.split("|")} - {""}))
