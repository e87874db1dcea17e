"""Which column is the target, and which one the split is stratified by."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pipeline.errors import InputError, UnknownNameError
from pipeline.samples.column import clean_column
from pipeline.samples.target import Target, decide_kind

__all__ = ["LABEL", "choose_targets", "stratifier"]

LABEL = "label"
"""Name of the target of class folders, and of the column that needs no naming."""


def choose_targets(
    columns: Mapping[str, Iterable[Any]],
    names: Sequence[str] = (),
    kinds: Mapping[str, str] | None = None,
    *,
    besides: Collection[str] = (),
    ids: Sequence[str] | None = None,
) -> dict[str, Target]:
    """Choose the columns to predict, and decide their kinds.

    Without names it is the column called ``label``, or the only other one.

    Parameters
    ----------
    columns : mapping of str to cells
        A sample set's columns, or a cache's.
    names : sequence of str
        The targets asked for, in this order.
    kinds : mapping of str to str, optional
        Kinds asked for, by target; ``""`` leaves the decision to `Target.decide`.
    besides : collection of str
        Columns that are no targets unless named: the groups, the split.
    ids : sequence of str, optional
        Names of the rows, for error messages.

    Raises
    ------
    InputError
        Without any column, with several to choose from, or when a chosen one is empty.
    UnknownNameError
        For a name that is no column, or a kind that does not exist.

    Examples
    --------
    >>> table = {"species": ["owl", "elk"], "visit": ["a", "b"]}
    >>> list(choose_targets(table, besides=["visit"]))
    ['species']
    """
    for name in (*names, *(kinds or {})):
        if name not in columns:
            raise UnknownNameError("target", name, tuple(columns))
    chosen = tuple(dict.fromkeys(names)) or (_obvious_target(columns, besides),)
    decided = {
        name: Target.decide(name, columns[name], (kinds or {}).get(name), ids) for name in chosen
    }
    for name, target in decided.items():
        if not target.present.any():
            raise InputError(
                f"target {name!r} has no value in any of its {len(target)} rows. "
                "At least two rows must be labelled: fill its cells, or name another target."
            )
    return decided


def stratifier(
    columns: Mapping[str, Iterable[Any]],
    kinds: Mapping[str, str] | None = None,
    *,
    besides: Collection[str] = (),
) -> Target | None:
    """Find the target that a split is stratified by: the first class column.

    It does not depend on which targets are trained. A column that names rather than
    classifies (more classes than half its rows: serial numbers, remarks) is taken only if
    there is no better one.

    Examples
    --------
    >>> table = {"serial": ["a1", "a2", "a3"], "species": ["owl", "elk", "owl"]}
    >>> stratifier(table, besides=["serial"]).name
    'species'
    """
    classes = []
    for name in (name for name in columns if name not in besides):
        cells = clean_column(columns[name])
        asked = (kinds or {}).get(name)
        if any(cell is not None for cell in cells) and (asked or decide_kind(cells)) == "class":
            classes.append(Target.decide(name, cells, "class"))
    sorting = (t for t in classes if 2 * len(t.classes) <= t.present.sum())
    return next(sorting, classes[0] if classes else None)


def _obvious_target(columns: Mapping[str, Iterable[Any]], besides: Collection[str]) -> str:
    free = [name for name in columns if name not in besides]
    if LABEL in free:
        return LABEL
    if len(free) == 1:
        return free[0]
    if free:
        raise InputError(
            f"there are {len(free)} columns that could be the target: {', '.join(free)}. "
            f"One called {LABEL!r} needs no naming: name the target, or rename its column."
        )
    raise InputError(
        "there are no labels. Accepted: a folder with one subfolder per class, or a table with "
        "a column 'path' and a column for each target. Sort the files into class folders, or "
        "write such a table."
    )
