"""Vectors that were computed elsewhere: what a cache says about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.contents import INPUT, Column, Contents, backbone_of, dtype_of
from pipeline.digest import digest_arrays, digest_bytes
from pipeline.errors import CacheError
from pipeline.spec import EmbeddingSpec, Preprocessing, StoreDtype

__all__ = ["Grown", "foreign_contents", "grown"]

Arrays = Mapping[str, NDArray[Any]]
Given = Mapping[str, Column | Iterable[Any]]
Values = Callable[[str, slice], NDArray[Any]]


class Grown(NamedTuple):
    """A store with more rows or layers: what it says, and where its values come from."""

    contents: Contents
    values: Values


def foreign_contents(
    layers: Mapping[str, Any],
    ids: Sequence[str],
    targets: Given,
    specs: Mapping[str, EmbeddingSpec] | None,
) -> tuple[Contents, dict[str, NDArray[Any]]]:
    """Give the contents of a store of these arrays, and the arrays as they are stored."""
    arrays = {layer: _matrix(layer, array) for layer, array in layers.items()}
    specs = specs or foreign_specs(arrays)
    stored = {layer: _stored(layer, array, specs, ids) for layer, array in arrays.items()}
    contents = Contents(
        ids=tuple(ids),
        layers={layer: array.shape[1] for layer, array in stored.items()},
        specs=dict(specs),
        inputs=_inputs(stored, len(ids)),
        targets=_columns(targets),
    )
    return contents, stored


def foreign_specs(arrays: Arrays) -> dict[str, EmbeddingSpec]:
    """Make a spec for each backbone of arrays of unknown origin.

    The digest of the arrays stands for that of the weights, so that vectors of two origins
    never pass for each other; rows that are appended later are vouched for by who does it.
    """
    specs = {}
    for backbone in dict.fromkeys(map(backbone_of, arrays)):
        own = {layer: array for layer, array in arrays.items() if backbone_of(layer) == backbone}
        half = all(array.dtype == np.float16 for array in own.values())
        store_dtype: StoreDtype = "float16" if half else "float32"
        specs[backbone] = EmbeddingSpec(
            backbone=backbone,
            weights_digest=digest_arrays(own).hex(),
            preprocess=Preprocessing(),
            pooling="none",
            precision="float32",
            decoder="none",
            store_dtype=store_dtype,
            modality="vectors",
        )
    return specs


def grown(
    old: Contents, values: Values, layers: Mapping[str, Any], ids: Sequence[str], targets: Given
) -> Grown:
    """Add new rows of all layers, or new layers of all rows.

    Raises
    ------
    CacheError
        When what is given is neither.
    """
    arrays = {layer: _matrix(layer, array) for layer, array in layers.items()}
    columns = _columns(targets)
    if arrays.keys() == old.layers.keys():
        return _with_rows(old, values, arrays, ids, columns)
    if not arrays.keys() & old.layers.keys() and tuple(ids) == old.ids:
        return _with_layers(old, values, arrays, columns)
    raise CacheError(
        f"got layers {', '.join(arrays)} for {len(ids)} ids, but append takes new rows with all "
        f"layers of the store ({', '.join(old.layers)}), or new layers with all its ids in order."
    )


def _with_rows(
    old: Contents,
    values: Values,
    arrays: Arrays,
    ids: Sequence[str],
    columns: Mapping[str, Column],
) -> Grown:
    new = {layer: _stored(layer, array, old.specs, ids) for layer, array in arrays.items()}
    for layer, width in old.layers.items():
        if new[layer].shape[1] != width:
            raise CacheError(
                f"layer {layer} has {new[layer].shape[1]} values a row; the store has {width}."
            )
    names = [*old.targets, *(name for name in columns if name not in old.targets)]
    missing_above, missing_below = len(old.ids), len(ids)
    targets = {
        name: _joined(old.targets.get(name), missing_above, columns.get(name), missing_below)
        for name in names
    }
    failed = tuple(failure for failure in old.failed if failure.id not in set(ids))
    inputs = np.concatenate([old.inputs, _inputs(new, len(ids))])
    contents = Contents(
        (*old.ids, *ids), old.layers, old.specs, inputs, targets, failed, weights=old.weights
    )

    def joined(layer: str, window: slice) -> NDArray[Any]:
        above = values(layer, slice(window.start, min(window.stop, len(old.ids))))
        first = max(window.start - len(old.ids), 0)
        below = new[layer][first : max(window.stop - len(old.ids), 0)]
        return np.concatenate([above, below])

    return Grown(contents, joined)


def _with_layers(
    old: Contents, values: Values, arrays: Arrays, columns: Mapping[str, Column]
) -> Grown:
    specs = {**foreign_specs(arrays), **old.specs}
    new = {layer: _stored(layer, array, specs, old.ids) for layer, array in arrays.items()}
    layers = {**old.layers, **{layer: array.shape[1] for layer, array in new.items()}}
    targets = {**old.targets, **columns}
    contents = Contents(
        old.ids, layers, specs, old.inputs, targets, old.failed, weights=old.weights
    )

    def chosen(layer: str, window: slice) -> NDArray[Any]:
        return new[layer][window] if layer in new else values(layer, window)

    return Grown(contents, chosen)


def _matrix(layer: str, array: Any) -> NDArray[Any]:
    matrix = np.asarray(array)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise CacheError(
            f"layer {layer} is {matrix.dtype} of shape {matrix.shape}, but must be numbers of "
            "shape (rows, width): one vector a row."
        )
    return matrix


def _stored(
    layer: str, array: NDArray[Any], specs: Mapping[str, EmbeddingSpec], ids: Sequence[str]
) -> NDArray[Any]:
    if len(array) != len(ids):
        raise CacheError(f"layer {layer} has {len(array)} rows for {len(ids)} ids.")
    with np.errstate(over="ignore"):
        stored = array.astype(dtype_of(layer, specs))
    bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
    if bad.size:
        raise CacheError(
            f"layer {layer} of {ids[bad[0]]!r} has a value that {stored.dtype} cannot hold "
            f"({len(bad)} such rows). Remove these rows, or give finite values in float32."
        )
    return stored


def _inputs(arrays: Arrays, n_rows: int) -> NDArray[np.void]:
    """Identify the rows by their values: nobody says what they were made of."""
    inputs = np.zeros(n_rows, INPUT)
    for row in range(n_rows):
        content = b"".join(array[row].tobytes() for array in arrays.values())
        inputs["digest"][row] = np.frombuffer(digest_bytes(content), np.uint8)
    return inputs


def _columns(targets: Given) -> dict[str, Column]:
    return {
        name: given if isinstance(given, Column) else Column.of("", given)
        for name, given in targets.items()
    }


def _joined(above: Column | None, n_above: int, below: Column | None, n_below: int) -> Column:
    """Stack two columns; one that is not there is missing throughout."""
    numeric = all(part is None or part.values.dtype == np.float64 for part in (above, below))
    missing: Any = np.nan if numeric else ""
    pieces = [
        part.values if part is not None else np.full(length, missing, float if numeric else object)
        for part, length in ((above, n_above), (below, n_below))
    ]
    kind = (above or below or Column("", np.empty(0))).kind
    return Column(kind, np.concatenate(pieces if numeric else [_as_text(p) for p in pieces]))


def _as_text(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype != np.float64:
        return values
    return Column.of("", ["" if np.isnan(value) else str(value) for value in values]).values
