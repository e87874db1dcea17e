"""What there is to embed: which rows are new or changed, which only lack layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cache import digests_of
from pipeline.errors import CacheError, UnreadableError
from pipeline.inputs import read

if TYPE_CHECKING:
    from pipeline.cache import EmbeddingStore, Part
    from pipeline.samples import SampleSet

__all__ = ["Plan", "make_plan", "open_batches", "refuse_losses"]

_MOST_LOST = 0.1


@dataclass(frozen=True)
class Plan:
    """Rows of a sample set by what is to be done with them.

    Parameters
    ----------
    fresh : list of int
        Rows that the cache lacks, or whose input has changed: they get all layers.
    kept : list of int
        Rows that the cache holds: they get new layers, if there are any.
    """

    fresh: list[int]
    kept: list[int]


def make_plan(samples: SampleSet, old: EmbeddingStore | None) -> Plan:
    """Sort the rows by what the cache holds, from names, sizes and times of change alone."""
    if old is None:
        return Plan(list(range(len(samples))), [])
    held = {
        name: (int(entry["size"]), int(entry["mtime_ns"]))
        for name, entry in zip(old.ids, old.inputs, strict=True)
    }
    ledger = {failure.id: (failure.size, failure.mtime_ns) for failure in old.failed}
    fresh, kept = [], []
    for row, (name, source) in enumerate(zip(samples.ids, samples.sources, strict=True)):
        stamp = _stamp(source)
        if stamp is not None and held.get(name) == stamp:
            kept.append(row)
        elif stamp is None or ledger.get(name) != stamp:
            fresh.append(row)
    return Plan(fresh, kept)


def open_batches(
    samples: SampleSet, batches: Sequence[Sequence[int]], layers: set[str], parts: Sequence[Part]
) -> list[Sequence[int]]:
    """Leave out the batches whose rows all lie in parts, made of inputs as they are now."""
    stamps: dict[str, tuple[int, int]] = {}
    for part in parts:
        if layers <= set(part.layers):
            stamps |= {
                name: (int(entry["size"]), int(entry["mtime_ns"]))
                for name, entry in zip(part.ids, part.inputs, strict=True)
            }

    def is_done(row: int) -> bool:
        name = samples.ids[row]
        return name in stamps and stamps[name] == _stamp(samples.sources[row])

    return [batch for batch in batches if not all(is_done(row) for row in batch)]


def refuse_losses(samples: SampleSet, old: EmbeddingStore, plan: Plan) -> int:
    """Count the rows that would be dropped, and refuse when they are more than a tenth.

    Renamed inputs are not lost: their content is looked up first.

    Raises
    ------
    CacheError
        Naming how many rows would go, and the way out.
    """
    gone = set(old.ids) - set(samples.ids)
    if len(gone) <= _MOST_LOST * len(old.ids):
        return len(gone)
    found = {_digest(samples.sources[row]) for row in plan.fresh}
    digests = dict(zip(old.ids, digests_of(old.inputs), strict=True))
    lost = sum(digests[name] not in found for name in gone)
    if lost > _MOST_LOST * len(old.ids):
        raise CacheError(
            f"{lost} of the {len(old.ids)} rows of {old.path} are not in this source, and would "
            "be dropped. Give the source it was made from, another cache, or --prune to drop them."
        )
    return lost


def _stamp(source: Any) -> tuple[int, int] | None:
    """Size and time of change of a file; None for what lies in memory or cannot be asked."""
    if not isinstance(source, Path):
        return None
    try:
        status = source.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _digest(source: Any) -> bytes | None:
    try:
        return read(source).digest
    except UnreadableError:
        return None
