"""Labels of a cache: which columns are the targets, what they are split and grouped by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config import TrainOptions, parse_target_kinds
from pipeline.errors import InputError, UnknownNameError
from pipeline.samples import Split, Target, choose_targets, read_parts, stratifier

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.cache import Column, EmbeddingStore

__all__ = ["Labelled", "labelled_rows"]

SPLIT = "split"


@dataclass(frozen=True, eq=False)
class Labelled:
    """What stage 2 learns from.

    Parameters
    ----------
    targets : dict of str to Target
        In the order asked for.
    split : Split
        One for all of them.
    groups : sequence, optional
        Group of each row.
    """

    targets: Mapping[str, Target]
    split: Split
    groups: Sequence[Any] | None


def labelled_rows(store: EmbeddingStore, options: TrainOptions) -> Labelled:
    """Choose the targets of a cache and hold rows out.

    Raises
    ------
    InputError
        When the cache has no labels, or nothing to tell apart in them.
    UnknownNameError
        For a column that the cache does not have.
    """
    columns = store.targets
    if not set(columns) - {SPLIT}:
        raise InputError(
            f"{store.path or 'the store'} has no labels. Put the images in one folder per class "
            "(photos/owl/1.jpg), or embed a table with a column 'path' and a column of labels."
        )
    asked = parse_target_kinds(options.target_kind)
    kinds = {name: column.kind for name, column in columns.items()} | asked
    group = _column(options.group, columns, "group")
    given = _column(options.split_column, columns, "split column")
    besides = {name for name in (SPLIT, options.group, options.split_column) if name}
    values = {name: column.values for name, column in columns.items()}
    for name in asked:
        if name not in columns:
            raise UnknownNameError("target", name, list(columns))
    targets = choose_targets(values, options.target, kinds, besides=besides, ids=store.ids)
    for target in targets.values():
        refuse_sameness(target)
    parts = given if given is not None else columns[SPLIT].values if SPLIT in columns else None
    split = Split.make(
        store.ids,
        [bytes(digest) for digest in store.inputs["digest"]],
        stratifier(values, kinds, besides=besides) or next(iter(targets.values())),
        test_fraction=options.test_fraction,
        seed=options.seed,
        groups=group,
        given=None if parts is None else read_parts(parts, store.ids),
        labelled=_labelled_anywhere(columns, besides),
    )
    return Labelled(targets, split, group)


def _labelled_anywhere(columns: Mapping[str, Column], besides: set[str]) -> NDArray[np.bool_]:
    """Rows that have a value in any column: the split is the same whatever is trained."""
    present = [
        ~np.isnan(column.values) if column.kind == "number" else column.values != ""
        for name, column in columns.items()
        if name not in besides
    ]
    return np.asarray(np.any(present, axis=0))


def refuse_sameness(target: Target, among: str = "every row") -> None:
    """Refuse a target that has the same value in all of its rows.

    Parameters
    ----------
    target : Target
    among : str
        What rows these are, for the sentence.

    Raises
    ------
    InputError
    """
    values = target.values[target.present].tolist()
    if len(set(values)) != 1:
        return
    if target.kind == "class":
        raise InputError(
            f"target {target.name!r} has only one class, {str(values[0])!r}, in {among}: there "
            "is nothing to tell apart. Give at least two classes, each in a folder of its own."
        )
    same = f"{values[0]:g}" if target.kind == "number" else repr("|".join(values[0]))
    raise InputError(
        f"target {target.name!r} is {same} in {among}: there is nothing to learn. Name another "
        "target."
    )


def _column(name: str | None, columns: Mapping[str, Any], kind: str) -> Any:
    if name is None:
        return None
    if name not in columns:
        raise UnknownNameError(kind, name, list(columns))
    return columns[name].values
