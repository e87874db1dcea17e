"""The merge: parts and the old cache become the new cache, by one rename.

The content digest identifies a row; the id names it. So every row of the new cache comes,
layer by layer, from a part, or from a row of the old cache that was made of the same
content, whatever its name was. A kill in the merge repeats the merge.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.contents import (
    INPUT,
    Column,
    Contents,
    Failure,
    backbone_of,
    check_specs,
    digests_of,
    dtype_of,
)
from pipeline.cache.parts import Part, PartFolder
from pipeline.cache.store import EmbeddingStore
from pipeline.cache.writing import write_cache
from pipeline.errors import CacheError
from pipeline.spec import EmbeddingSpec

__all__ = ["merge"]

_FROM_OLD = -1


def merge(
    path: str | os.PathLike[str],
    *,
    ids: Sequence[str],
    layers: Mapping[str, int],
    specs: Mapping[str, EmbeddingSpec],
    parts: Sequence[Part] = (),
    old: EmbeddingStore | None = None,
    targets: Mapping[str, Column] | None = None,
    failed: Iterable[Failure] = (),
    weights: Mapping[str, str] | None = None,
) -> None:
    """Write the finished cache, and remove the parts. The caller holds the lock.

    Memory is bounded by one window of 4,096 rows, plus a few hundred bytes a row.

    Parameters
    ----------
    path : str or Path
        The cache; one that stands there is replaced, and its readers keep it.
    ids : sequence of str
        Every input that shall be in the cache, in its final order. An input that failed in
        a part, or in the old cache and was not tried again, goes to the ledger; the others
        become rows. Old rows that are not named here are dropped, and so are old layers
        that ``layers`` does not name.
    layers : mapping of str to int
        Width of every layer, bottom to top.
    specs : mapping of str to EmbeddingSpec
        One a backbone.
    parts : sequence of Part
        What was embedded since; where two hold an id, the later one counts.
    old : EmbeddingStore, optional
        The finished cache so far.
    targets : mapping of str to Column, optional
        Columns in the order of ``ids``.
    failed : iterable of Failure
        Inputs that nobody tried to read; they are not among ``ids``.
    weights : mapping of str to str, optional
        Where the weights of a backbone came from, unless its name says it.

    Raises
    ------
    CacheMismatchError
        When a part or the old cache was made by another spec.
    CacheDamagedError
        When a row that is needed from the old cache is damaged, naming layer and rows.
    CacheError
        When a row has no vector anywhere, or the disk is full.
    """
    path = Path(path)
    _check_sources(specs, parts, old)
    ledger = _ledger(parts, old)
    inputs, places = _inputs(parts, old)
    rows = [row for row, id in enumerate(ids) if id not in ledger]
    kept = [ids[row] for row in rows]
    if lost := [id for id in kept if id not in places]:
        raise _missing(lost, "no vector")
    contents = Contents(
        ids=tuple(kept),
        layers=dict(layers),
        specs={backbone: specs[backbone] for backbone in dict.fromkeys(map(backbone_of, layers))},
        inputs=inputs[[places[id] for id in kept]],
        targets={name: column.take(rows) for name, column in (targets or {}).items()},
        failed=(*(ledger[id] for id in ids if id in ledger), *failed),
        weights=dict(weights or {}),
    )
    sources = _sources(contents, parts, old)

    def values(layer: str, window: slice) -> NDArray[Any]:
        return sources[layer].values(layer, window)

    write_cache(path, contents, values)
    PartFolder(path).remove()


@dataclass(frozen=True, eq=False)
class _Source:
    """Where the rows of a layer come from: which part (or the old cache), and which row there."""

    contents: Contents
    parts: Sequence[Part]
    old: EmbeddingStore | None
    which: NDArray[np.int32]
    row: NDArray[np.int64]

    def values(self, layer: str, window: slice) -> NDArray[Any]:
        which, row = self.which[window], self.row[window]
        shape = (len(row), self.contents.layers[layer])
        gathered = np.empty(shape, dtype_of(layer, self.contents.specs))
        for number in np.unique(which):
            there = which == number
            if number == _FROM_OLD:
                assert self.old is not None  # `_sources` names it only where it is
                gathered[there] = self.old.values(layer, row[there])
            else:
                gathered[there] = self.parts[number].vectors()[layer][row[there]]
        return gathered


def _sources(
    contents: Contents, parts: Sequence[Part], old: EmbeddingStore | None
) -> dict[str, _Source]:
    """Find the source of every row and layer; layers that lie in the same files share it."""
    shared: dict[tuple[object, ...], _Source] = {}
    sources = {}
    for layer in contents.layers:
        holders = tuple(number for number, part in enumerate(parts) if layer in part.layers)
        holds = old is not None and layer in old.layers
        if (holders, holds) not in shared:
            which, row = _found(layer, contents, parts, holders, old if holds else None)
            shared[holders, holds] = _Source(contents, parts, old, which, row)
        sources[layer] = shared[holders, holds]
    return sources


def _found(
    layer: str,
    contents: Contents,
    parts: Sequence[Part],
    holders: Iterable[int],
    old: EmbeddingStore | None,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Look every row up by name and content in the parts, then in the old cache."""
    fresh: dict[tuple[str, bytes], tuple[int, int]] = {}
    for number in holders:
        digests = digests_of(parts[number].inputs)
        for row, place in enumerate(parts[number].embedded()):
            fresh[parts[number].ids[place], digests[place]] = (number, row)
    named, alike = _old_rows(old)
    which = np.full(len(contents.ids), _FROM_OLD, dtype=np.int32)
    rows = np.zeros(len(contents.ids), dtype=np.int64)
    lost = []
    for row, key in enumerate(zip(contents.ids, digests_of(contents.inputs), strict=True)):
        if key in fresh:
            which[row], rows[row] = fresh[key]
        elif key in named or key[1] in alike:
            rows[row] = named.get(key, alike[key[1]])
        else:
            lost.append(key[0])
    if lost:
        raise _missing(lost, f"no vector of layer {layer}")
    return which, rows


def _old_rows(
    old: EmbeddingStore | None,
) -> tuple[dict[tuple[str, bytes], int], dict[bytes, int]]:
    """Index the old rows by name and content, and by content alone (the first of each)."""
    if old is None:
        return {}, {}
    digests = digests_of(old.inputs)
    named = {key: row for row, key in enumerate(zip(old.ids, digests, strict=True))}
    alike = {digest: row for row, digest in reversed(list(enumerate(digests)))}
    return named, alike


def _ledger(parts: Sequence[Part], old: EmbeddingStore | None) -> dict[str, Failure]:
    """Collect the failures: the latest word on an id counts."""
    ledger = {failure.id: failure for failure in (old.failed if old is not None else ())}
    for part in parts:
        digests = digests_of(part.inputs)
        for row, id in enumerate(part.ids):
            ledger.pop(id, None)
            if row in part.failed:
                size, mtime_ns = int(part.inputs["size"][row]), int(part.inputs["mtime_ns"][row])
                ledger[id] = Failure(id, part.failed[row], digests[row], size, mtime_ns)
    return ledger


def _inputs(
    parts: Sequence[Part], old: EmbeddingStore | None
) -> tuple[NDArray[np.void], dict[str, int]]:
    """Stack what is known of all inputs, and where each id stands: the latest word counts."""
    holders: list[EmbeddingStore | Part] = [*([] if old is None else [old]), *parts]
    stacked = np.concatenate([np.empty(0, INPUT), *(holder.inputs for holder in holders)])
    names = [id for holder in holders for id in holder.ids]
    return stacked, {id: place for place, id in enumerate(names)}


def _check_sources(
    specs: Mapping[str, EmbeddingSpec], parts: Sequence[Part], old: EmbeddingStore | None
) -> None:
    for part in parts:
        check_specs(str(part.path), part.specs, _shared(specs, part.specs))
    if old is not None:
        check_specs(str(old.path), old.specs, _shared(specs, old.specs))


def _shared(
    specs: Mapping[str, EmbeddingSpec], held: Mapping[str, EmbeddingSpec]
) -> list[EmbeddingSpec]:
    return [spec for backbone, spec in specs.items() if backbone in held]


def _missing(ids: Sequence[str], what: str) -> CacheError:
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return CacheError(
        f"{what} for {', '.join(map(repr, ids[:3]))}{more}: neither in the parts nor in the old "
        "cache. Embed them first."
    )
