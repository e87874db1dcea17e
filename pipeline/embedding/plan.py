"""What there is to embed: which rows are new or changed, which only lack layers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cache import digests_of
from pipeline.errors import CacheError, UnreadableError
from pipeline.inputs import read

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.cache import EmbeddingStore, Part
    from pipeline.samples import SampleSet

__all__ = [
    "MOST_LOST",
    "Mark",
    "Plan",
    "damaged_rows",
    "make_plan",
    "mark_of",
    "open_batches",
    "outdated_parts",
    "refuse_losses",
    "refuse_unreadable",
]

_log = logging.getLogger(__name__)

MOST_LOST = 0.1
"""Share of the rows that a run may drop without being told to."""

Mark = tuple[int, int] | bytes | None
"""What tells an input from a changed one at little cost: size and time of change of a file,
the digest of what lies in memory, None for what cannot be asked and equals nothing."""


@dataclass(frozen=True)
class Plan:
    """Rows of a sample set by what is to be done with them.

    What failed before and has not changed is in neither.

    Parameters
    ----------
    fresh : list of int
        Rows that the cache lacks, or whose input has changed: they get all layers.
    kept : list of int
        Rows that the cache holds: they get new layers, if there are any.
    """

    fresh: list[int]
    kept: list[int]


def mark_of(source: Any) -> Mark:
    """Mark an input, without reading a file.

    Examples
    --------
    >>> mark_of(Path("no such file")) is None, len(mark_of(b"a picture"))
    (True, 16)
    """
    if not isinstance(source, Path):
        return _digest(source)
    try:
        status = source.stat()
    except (OSError, ValueError):  # ValueError: a NUL character in the name
        return None
    return status.st_size, status.st_mtime_ns


def make_plan(
    samples: SampleSet,
    marks: Sequence[Mark],
    old: EmbeddingStore | None,
    *,
    by_content: bool = False,
    damaged: Collection[int] = (),
) -> Plan:
    """Sort the rows by what the cache holds.

    Parameters
    ----------
    samples : SampleSet
    marks : sequence of Mark
        One a row, as `mark_of` gives them.
    old : EmbeddingStore, optional
        The cache so far.
    by_content : bool
        Also keep rows under another name or date whose content the cache holds, at the
        price of reading them. Without it they are fresh, and copied once they are read.
    damaged : collection of int
        Rows of the cache that must not be relied on.
    """
    if old is None:
        return Plan(list(range(len(samples))), [])
    sound = [row for row in range(len(old)) if row not in damaged]
    held = _marks([old.ids[row] for row in sound], old.inputs[sound])
    contents = {digest for _, digest in held.values()} if by_content else set()
    ledger = {failed.id: ((failed.size, failed.mtime_ns), failed.digest) for failed in old.failed}
    fresh, kept = [], []
    for row, (name, mark) in enumerate(zip(samples.ids, marks, strict=True)):
        if mark in held.get(name, ()) or (contents and _digest(samples.sources[row]) in contents):
            kept.append(row)
        elif mark not in ledger.get(name, ()):
            fresh.append(row)
    return Plan(fresh, kept)


def open_batches(
    samples: SampleSet,
    marks: Sequence[Mark],
    batches: Sequence[Sequence[int]],
    layers: Collection[str],
    parts: Sequence[Part],
    known: Callable[[bytes], bool] | None,
) -> list[Sequence[int]]:
    """Leave out the batches whose rows all lie in parts, made of inputs as they are now.

    A row that a part wanted to copy counts only while the cache still holds its content.
    """
    made: dict[str, tuple[Mark, ...]] = {}
    for part in parts:
        if set(layers) <= set(part.layers):
            made |= _marks(part.ids, part.inputs)
            for row in part.copied:
                if known is None or not known(made[part.ids[row]][1]):  # type: ignore[arg-type]
                    del made[part.ids[row]]
    return [
        batch
        for batch in batches
        if not all(marks[row] in made.get(samples.ids[row], ()) for row in batch)
    ]


def outdated_parts(
    samples: SampleSet, marks: Sequence[Mark], plan: Plan, parts: Sequence[Part]
) -> list[Part]:
    """Find the parts that know an input otherwise than the cache does, which knows it as it is.

    Such an input will not be read again, and a part must not have the last word on it.
    """
    fresh = set(plan.fresh)
    pairs = enumerate(zip(samples.ids, marks, strict=True))
    settled = {name: mark for row, (name, mark) in pairs if row not in fresh}
    return [
        part
        for part in parts
        if any(
            name in settled and settled[name] not in made
            for name, made in _marks(part.ids, part.inputs).items()
        )
    ]


def refuse_losses(samples: SampleSet, old: EmbeddingStore, plan: Plan) -> int:
    """Count the rows that would be dropped, and refuse when they are more than a tenth.

    Renamed inputs are not lost: their content is looked up first.

    Raises
    ------
    CacheError
        Naming how many rows would go, and the way out.
    """
    held = set(old.ids)
    gone = held - set(samples.ids)
    if len(gone) <= MOST_LOST * len(old):
        return len(gone)
    new = {row for row, name in enumerate(samples.ids) if name not in held}
    found = {_digest(samples.sources[row]) for row in new.union(plan.fresh)}
    digests = dict(zip(old.ids, digests_of(old.inputs), strict=True))
    lost = sum(digests[name] not in found for name in gone)
    if lost > MOST_LOST * len(old):
        raise CacheError(
            f"{lost} of the {len(old)} rows of {old.path} are not in this source, and would "
            "be dropped. Give the source it was made from, another cache, or --prune to drop them."
        )
    return lost


def refuse_unreadable(old: EmbeddingStore, failures: Mapping[str, str], most: float) -> None:
    """Refuse when too large a share of the rows would be dropped for inputs that cannot be used.

    Raises
    ------
    CacheError
        Naming how many, one of them with its reason, and the way out.
    """
    lost = [name for name in old.ids if name in failures]
    if len(lost) > most * len(old):
        raise CacheError(
            f"{len(lost)} of the {len(old)} rows of {old.path} would be dropped, for their inputs "
            f"cannot be used any more: {lost[0]!r} ({failures[lost[0]]}), for instance. Mend them, "
            "or give --prune to drop the rows."
        )


def damaged_rows(old: EmbeddingStore) -> frozenset[int]:
    """Find the damaged rows of a cache, at the price of reading it: a second a GB."""
    found = old.damaged()
    if found:
        words = "; ".join(
            f"{layer} {', '.join(f'{rows.start} to {rows.stop - 1}' for rows in ranges)}"
            for layer, ranges in found.items()
        )
        _log.warning("damaged rows of %s are embedded again: %s", old.path, words)
    return frozenset(row for ranges in found.values() for span in ranges for row in span)


def _marks(ids: Sequence[str], inputs: NDArray[np.void]) -> dict[str, tuple[Mark, bytes]]:
    """Give both marks that an input may have, by id: which one applies depends on its kind."""
    stamps = zip(inputs["size"].tolist(), inputs["mtime_ns"].tolist(), strict=True)
    return dict(zip(ids, zip(stamps, digests_of(inputs), strict=True), strict=True))


def _digest(source: Any) -> bytes | None:
    try:
        return read(source).digest
    except UnreadableError:
        return None
