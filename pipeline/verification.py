"""Verification: whether a file is what was written, and whether its numbers come out again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.backbones import agreement
from pipeline.cache import BLOCK_ROWS, CacheLock, EmbeddingStore, digests_of, is_cache
from pipeline.config import EmbedOptions
from pipeline.embedding import EmbeddingJob, mark_of
from pipeline.errors import InputError, UnreadableError
from pipeline.inputs import read
from pipeline.model import embed_in_memory, read_model_file, rebuilt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.embedding import Summary
    from pipeline.samples import SampleSet

__all__ = ["Drift", "Verified", "drift", "repair", "verify"]

_SAMPLE = 32
_ROUNDING = 0.99
"""Least agreement of the same network on another machine, or in another version."""


@dataclass(frozen=True)
class Verified:
    """What was found in a file that could be opened at all.

    Parameters
    ----------
    kind : {"cache", "model"}
    rows : int
        Rows of a cache; rows that a model was trained on.
    layers : dict of str to int
        Width of every layer.
    damaged : dict of str to list of (int, int)
        First and last row of every damaged stretch, by layer.
    not_finite : dict of str to list of str
        Ids of the rows that hold NaN or infinity, by layer.
    """

    kind: Literal["cache", "model"]
    rows: int
    layers: Mapping[str, int]
    damaged: Mapping[str, list[tuple[int, int]]] = field(default_factory=dict)
    not_finite: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.damaged and not self.not_finite


def verify(path: Path) -> Verified:
    """Check every byte of a cache or of a model file.

    Parameters
    ----------
    path : Path
        Its content says which of the two it is.

    Raises
    ------
    CacheError, ModelFileError
        When it cannot be opened: what steers the reader is damaged, or it is neither.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "cache.h5")
    ...     vectors = {"net/tap": np.ones((2, 3))}
    ...     EmbeddingStore.from_arrays(vectors, ["a", "b"], path=path).close()
    ...     verify(path).sound
    True
    """
    if not is_cache(path):
        description, _ = read_model_file(path)
        rows = max(found["n_train"] for found in dict(description["targets"]).values())
        return Verified("model", rows, dict(description["layers"]))
    with EmbeddingStore.open(path) as store:
        damaged = {
            layer: [(rows.start, rows.stop - 1) for rows in ranges]
            for layer, ranges in store.damaged().items()
        }
        not_finite = {
            layer: [store.ids[row] for row in rows]
            for layer in store.layers
            if (rows := list(_not_finite(store, layer, damaged.get(layer, []))))
        }
        return Verified("cache", len(store), store.layers, damaged, not_finite)


def _not_finite(store: EmbeddingStore, layer: str, damaged: list[tuple[int, int]]) -> Iterator[int]:
    """List the rows that hold no number, block by block; damaged blocks say nothing."""
    for start in range(0, len(store), BLOCK_ROWS):
        rows = slice(start, min(start + BLOCK_ROWS, len(store)))
        if not any(first < rows.stop and rows.start <= last for first, last in damaged):
            finite = np.isfinite(store.values(layer, rows)).all(axis=1)
            yield from (start + np.flatnonzero(~finite)).tolist()


def repair(
    path: Path, samples: SampleSet, *, max_pixels: int | None = None, progress: bool = False
) -> Summary:
    """Embed the damaged rows of a cache again, and nothing else.

    Parameters
    ----------
    path : Path
    samples : SampleSet
        The source that the cache was made from; what it holds beside is left alone.
    max_pixels : int, optional
        As for `embed`.
    progress : bool

    Raises
    ------
    InputError
        When the source lacks rows of the cache, or holds something else under their names.
    """
    with CacheLock(path):
        with EmbeddingStore.open(path) as store:
            known = {*store.ids, *(failure.id for failure in store.failed)}
            _refuse_other_source(store, samples)
        rows = [row for row, name in enumerate(samples.ids) if name in known]
        options = EmbedOptions(max_pixels=max_pixels)
        job = EmbeddingJob(samples.subset(rows), path, options, distrust=True)
        job.prepare()
        return job.execute(progress=progress)


def _refuse_other_source(store: EmbeddingStore, samples: SampleSet) -> None:
    """Make sure that the source holds what every row was made of; what looks alike is not read."""
    sources = dict(zip(samples.ids, samples.sources, strict=True))
    digests = digests_of(store.inputs)
    stamps = store.inputs[["size", "mtime_ns"]].tolist()
    other = [
        name
        for name, digest, stamp in zip(store.ids, digests, stamps, strict=True)
        if name not in sources
        or (mark_of(sources[name]) not in (stamp, digest) and _digest(sources[name]) != digest)
    ]
    if other:
        raise InputError(
            f"{len(other)} of the {len(store)} rows of {store.path} are not in this source as "
            f"they were embedded, {other[0]!r} for instance. Give the source that it was made from."
        )


@dataclass(frozen=True)
class Drift:
    """How far the numbers of here and now are from the stored ones.

    Parameters
    ----------
    rows : int
        Rows that were embedded again.
    changed : int
        Rows of the sample whose input has changed or is gone; they say nothing.
    layers : dict of str to float
        Least agreement of a row by layer: 1 where every number is the same.
    """

    rows: int
    changed: int
    layers: Mapping[str, float]

    @property
    def verdicts(self) -> dict[str, str]:
        """``identical``, ``rounding`` or ``another network``, by layer."""
        return {layer: _verdict(found) for layer, found in self.layers.items()}


def _verdict(found: float) -> str:
    if found == 1:
        return "identical"
    return "rounding" if found >= _ROUNDING else "another network"


def drift(path: Path, samples: SampleSet, *, max_pixels: int | None = None, seed: int = 0) -> Drift:
    """Embed a sample of the rows here and now, and compare with the stored ones.

    Parameters
    ----------
    path : Path
        A cache.
    samples : SampleSet
        The source that it was made from, or a part of it.
    max_pixels : int, optional
        As for `embed`.
    seed : int
        Of the sample of 32 rows.

    Raises
    ------
    InputError
        When not one row of the cache is in the source, unchanged.
    BackboneError
        When the backbone's name stands for other weights by now.
    """
    with EmbeddingStore.open(path) as store:
        here = {name: row for row, name in enumerate(samples.ids)}
        shared = [row for row, name in enumerate(store.ids) if name in here]
        chosen = np.random.default_rng(seed).permutation(shared)[:_SAMPLE]
        digests = digests_of(store.inputs)
        same = [
            row
            for row in sorted(chosen)
            if _digest(samples.sources[here[store.ids[row]]]) == digests[row]
        ]
        if not same:
            raise InputError(
                f"no row of {path} is in this source with the same content. Give the source "
                "that it was made from."
            )
        embedded = embed_in_memory(
            samples.subset([here[store.ids[row]] for row in same]),
            store.specs,
            store.layers,
            lambda name: rebuilt(store.specs[name], store.weights.get(name, "default")),
            own_modules=store.specs,  # the network itself, not a graph that was kept of it
            max_pixels=max_pixels,
        )
        stored, slices = store.matrix(rows=same)
    found = {
        layer: _agreement(embedded.X[:, columns], stored[:, columns])
        for layer, columns in slices.items()
    }
    return Drift(len(same), len(chosen) - len(same), found)


def _digest(source: Any) -> bytes | None:
    try:
        return read(source).digest
    except UnreadableError:
        return None


def _agreement(now: NDArray[np.float32], then: NDArray[np.float32]) -> float:
    """Agreement of the worst row; below 1 as soon as a single number differs."""
    if np.array_equal(now, then):
        return 1.0
    rows = (agreement(a[None], b[None]) for a, b in zip(now, then, strict=True))
    return min(min(rows), 1 - 1e-16)
