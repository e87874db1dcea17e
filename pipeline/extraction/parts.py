"""write_parts(): the loop with parts as its sink. A cluster's workers run the same function."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

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
    max_pixels: int | None = None,
    clock: Clock | None = None,
) -> Generator[Extracted, None, None]:
    """Embed planned batches into parts; a kill loses what came after the last part.

    Parameters
    ----------
    samples, forwards, batches, known, num_workers, max_pixels, clock
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

    def write(batches: Sequence[Extracted]) -> None:
        with clock.spent_on("write"):
            folder.write(
                _joined([batch.layers for batch in batches]),
                first_row=int(batches[0].rows[0]),
                ids=[name for batch in batches for name in batch.ids],
                inputs=np.concatenate([batch.inputs for batch in batches]),
                specs=specs,
                failed={n: reason for batch in batches for n, reason in batch.failed.items()},
                copied=[name for batch in batches for name in batch.copied],
                settings=settings,
            )

    extracting = extract(
        samples, forwards, batches,
        known=known, num_workers=num_workers, max_pixels=max_pixels, clock=clock,
    )  # fmt: skip
    with _Writer(write) as writer, closing(extracting):
        try:
            for batch in extracting:
                pending.append(batch)
                yield batch
                if time.monotonic() - began >= _PART_SECONDS or _size(pending) >= _PART_BYTES:
                    writer.put(pending)
                    pending, began = [], time.monotonic()
        finally:  # what is finished is kept, also where an error or a Ctrl-C ends the loop
            if pending:
                writer.put(pending)


class _Writer:
    """Writes in a thread of its own, one part at a time; leaving waits for the last."""

    def __init__(self, write: Callable[[Sequence[Extracted]], None]) -> None:
        self._write = write
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writing")
        self._last: Future[None] | None = None

    def put(self, batches: Sequence[Extracted]) -> None:
        """Hand batches over, once the part before is written; its error is raised here."""
        if self._last is not None:
            self._last.result()
        self._last = self._thread.submit(self._write, batches)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.shutdown()
        if self._last is not None and kind is None:
            self._last.result()


def _joined(pieces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _size(pending: Sequence[Extracted]) -> int:
    return sum(array.nbytes for batch in pending for array in batch.layers.values())
