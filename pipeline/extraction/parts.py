"""write_parts(): the loop with parts as its sink. A cluster's workers run the same function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.cache import PartFolder
from pipeline.extraction.clock import Clock
from pipeline.extraction.forward import Forward
from pipeline.extraction.loop import Extracted, extract

if TYPE_CHECKING:
    from pipeline.samples import SampleSet

__all__ = ["write_parts"]

_PART_SECONDS = 5.0
_PART_BYTES = 64_000_000


def write_parts(
    samples: SampleSet,
    forwards: Sequence[Forward],
    batches: Sequence[Sequence[int]],
    folder: PartFolder,
    *,
    settings: Mapping[str, Any],
    known: Callable[[bytes], bool] | None = None,
    num_workers: int | None = None,
    clock: Clock | None = None,
) -> Iterator[Extracted]:
    """Embed planned batches into parts; a kill loses what came after the last part.

    Parameters
    ----------
    samples, forwards, batches, known, num_workers, clock
        As for `extract`.
    folder : PartFolder
        Where the parts go.
    settings : mapping
        What was resolved and a resume must take from the parts.

    Yields
    ------
    Extracted
        Every batch, before its part is written: whoever counts sees it at once.
    """
    clock = clock or Clock()
    specs = {forward.spec.backbone: forward.spec for forward in forwards}
    pending: list[Extracted] = []
    began = time.monotonic()

    def flush() -> None:
        with clock.spent_on("write"):
            folder.write(
                _joined([batch.layers for batch in pending]),
                first_row=int(pending[0].rows[0]),
                ids=[name for batch in pending for name in batch.ids],
                inputs=np.concatenate([batch.inputs for batch in pending]),
                specs=specs,
                failed={n: reason for batch in pending for n, reason in batch.failed.items()},
                copied=[name for batch in pending for name in batch.copied],
                settings=settings,
            )
        pending.clear()

    for batch in extract(
        samples, forwards, batches, known=known, num_workers=num_workers, clock=clock
    ):
        pending.append(batch)
        yield batch
        if time.monotonic() - began >= _PART_SECONDS or _size(pending) >= _PART_BYTES:
            flush()
            began = time.monotonic()
    if pending:
        flush()


def _joined(pieces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _size(pending: Sequence[Extracted]) -> int:
    return sum(array.nbytes for batch in pending for array in batch.layers.values())
