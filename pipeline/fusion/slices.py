"""Which columns of ``X`` are which layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise

from pipeline.errors import InputError, UnknownNameError

__all__ = ["WHOLE", "find_layer", "resolve_slices", "slices_of"]

WHOLE = "features"
"""Name of the one layer that ``X`` is where no slices are given."""


def slices_of(widths: Mapping[str, int]) -> dict[str, slice]:
    """Give the columns of layers that stand side by side, in the order given.

    Examples
    --------
    >>> slices_of({"blocks.0": 2, "blocks.1": 3})
    {'blocks.0': slice(0, 2, None), 'blocks.1': slice(2, 5, None)}
    """
    ends = accumulate(widths.values())
    return {
        name: slice(end - width, end)
        for (name, width), end in zip(widths.items(), ends, strict=True)
    }


def resolve_slices(
    layer_slices: Mapping[str, slice] | None, n_columns: int, *, whole: bool = False
) -> dict[str, tuple[int, int]]:
    """Give start and stop column of every layer, in the order given.

    Parameters
    ----------
    layer_slices : mapping of str to slice, or None
        As `EmbeddingStore.matrix` returns them; None takes ``X`` for one layer.
    n_columns : int
        Columns of ``X``.
    whole : bool
        Every column has to be one of a layer.

    Raises
    ------
    InputError
        When there is no layer, or one does not lie within ``X``, or two overlap, or a column
        is left over that should not be.

    Examples
    --------
    >>> resolve_slices({"blocks.0": slice(0, 2), "blocks.1": slice(2, 5)}, 5)
    {'blocks.0': (0, 2), 'blocks.1': (2, 5)}
    """
    if layer_slices is None:
        return {WHOLE: (0, n_columns)}
    if not layer_slices:
        raise InputError("layer_slices is empty. Give a slice for each layer, or None for one.")
    resolved = {}
    for name, columns in layer_slices.items():
        if not isinstance(columns, slice):
            raise InputError(
                f"layer {name!r} is {columns!r}, but must be a slice of columns, such as "
                "slice(0, 16)."
            )
        start, stop = columns.start or 0, n_columns if columns.stop is None else columns.stop
        if columns.step not in (None, 1) or not 0 <= start < stop <= n_columns:
            raise InputError(
                f"layer {name!r} is {columns}, but X has the columns 0 to {n_columns - 1}. "
                "Give the layer_slices that belong to this X."
            )
        resolved[name] = (start, stop)
    in_order = sorted(resolved.items(), key=lambda item: item[1])
    for (below, (_, stop)), (above, (start, _)) in pairwise(in_order):
        if start < stop:
            raise InputError(f"layers {below!r} and {above!r} share columns. Give each its own.")
    ends = [0, *(stop for _, (_, stop) in in_order)]
    starts = [*(start for _, (start, _) in in_order), n_columns]
    for stop, start in zip(ends, starts, strict=True):
        if whole and stop < start:
            raise InputError(
                f"columns {stop} to {start - 1} of X are of no layer. Give layer_slices that "
                "leave no gap, or leave these columns out of X."
            )
    return resolved


def find_layer(name: str, layers: Iterable[str]) -> str:
    """Find a layer by its full name, or by its tap where only one has it.

    Raises
    ------
    UnknownNameError
        When no layer, or more than one, is meant.

    Examples
    --------
    >>> find_layer("blocks.1", ["resnet/blocks.0", "resnet/blocks.1"])
    'resnet/blocks.1'
    """
    accepted = list(layers)
    meant = [layer for layer in accepted if layer.rpartition("/")[2] == name]
    if name in accepted:
        return name
    if len(meant) == 1:
        return meant[0]
    raise UnknownNameError("layer", name, meant or accepted)
