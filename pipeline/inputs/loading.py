"""Loading: planned batches of network inputs, made by threads.

Each slot is one task: read, digest, decode, look, prepare into the batch. Batches come in
their planned order, and an input that cannot be read keeps its slot, so rows never shift.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pipeline.digest import DIGEST_SIZE
from pipeline.errors import OptionError, UnreadableError
from pipeline.inputs.augmentation import View
from pipeline.inputs.decoding import MAX_PIXELS, Decoder, check_decoder
from pipeline.inputs.preparation import prepare
from pipeline.inputs.reading import read
from pipeline.processors import usable_processors
from pipeline.spec import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    _Outs = dict[Preprocessing, NDArray[np.uint8]]

__all__ = ["Loaded", "Slot", "auto_workers", "load"]

_log = logging.getLogger(__name__)

_MOST_WORKERS = 16
_MOST_A_PROCESSOR = 4
"""More threads than that only wait for each other, even where the disk is slow."""

_BATCHES_AHEAD = 2
_SLOTS_AHEAD = 4
"""A worker's share of what is under way, where batches are small."""


@dataclass(frozen=True)
class Slot:
    """What became of one row of a batch.

    Parameters
    ----------
    state : {"filled", "known", "failed"}
        ``known``: its digest is held already, so it was not decoded.
    digest : bytes
        16 bytes that name its content; zeros where nothing could be read.
    size, mtime_ns : int
        Bytes, and when the file was last changed; 0 where unknown.
    reason : str
        Why it failed, else empty.
    transient : bool
        Whether that reason lies outside its content.
    seconds : float
        Time a thread spent on it.
    """

    state: Literal["filled", "known", "failed"]
    digest: bytes = bytes(DIGEST_SIZE)
    size: int = 0
    mtime_ns: int = 0
    reason: str = ""
    transient: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Loaded:
    """A batch of B inputs; its arrays belong to whoever receives it.

    Parameters
    ----------
    rows : ndarray of int, shape (B,)
        Which sources these are.
    images : dict of Preprocessing to ndarray of uint8, shape (B, h, w, 3)
        RGB, not yet normalised; zeros in slots that are not filled.
    slots : tuple of Slot, length B
        What became of each row.
    waited : float
        Seconds that the receiver waited for it. Near zero: loading is not the limit.
    """

    rows: NDArray[np.intp]
    images: dict[Preprocessing, NDArray[np.uint8]]
    slots: tuple[Slot, ...]
    waited: float

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Which slots hold a picture, shape (B,)."""
        import numpy as np

        return np.array([slot.state == "filled" for slot in self.slots], dtype=bool)

    @property
    def seconds(self) -> float:
        """Time spent on reading, decoding and preparing, summed over threads."""
        return sum(slot.seconds for slot in self.slots)


def auto_workers(cpu_count: int | None = None) -> int:
    """Give the number of threads: one a processor that this process may use, at most 16.

    Decoders leave the interpreter's lock, so threads scale until the Python between them
    (about a twentieth of a photo's time) fills one processor.

    Examples
    --------
    >>> auto_workers(2), auto_workers(64)
    (2, 16)
    """
    return min(cpu_count or usable_processors(), _MOST_WORKERS)


def load(
    sources: Sequence[Any],
    batches: Sequence[Sequence[int]],
    preprocessings: Sequence[Preprocessing],
    *,
    known: Callable[[bytes], bool] | None = None,
    num_workers: int | None = None,
    decoder: Decoder = "torchcodec",
    max_pixels: int | None = None,
    view: View | None = None,
) -> Generator[Loaded, None, None]:
    """Load batches in their planned order, a few ahead of the receiver.

    Parameters
    ----------
    sources : sequence of str, Path, bytes, PIL image or ndarray of uint8
        One for each row.
    batches : sequence of sequences of int
        The rows of each batch.
    preprocessings : sequence of Preprocessing
        Distinct; all are made from one decoded picture.
    known : callable of bytes to bool, optional
        Whether a digest is held already. Asked from several threads.
    num_workers : int, optional
        Threads; `auto_workers` decides if None. The bytes do not depend on it.
    decoder : {"torchcodec", "pil"}
        Decoder of first choice.
    max_pixels : int, optional
        Larger pictures are refused; `MAX_PIXELS` if None.
    view : View, optional
        How every picture is looked at before it is prepared; the clean one if None. ``known``
        goes with the clean one alone: a digest names a content, not a view of it.

    Returns
    -------
    iterator of Loaded
        Closing it, or an exception in the loop over it, ends the threads.

    Raises
    ------
    OptionError, UnknownNameError
        At once, for an impossible number of workers or decoder.
    InputError
        While iterating, when a source is of a kind that nobody can read.

    Examples
    --------
    >>> import numpy as np
    >>> pictures = np.zeros((3, 30, 40, 3), dtype=np.uint8)
    >>> small = Preprocessing(image_size=(8, 8))
    >>> for batch in load(pictures, [[0, 1], [2]], [small], decoder="pil"):
    ...     print(batch.rows, batch.images[small].shape)
    [0 1] (2, 8, 8, 3)
    [2] (1, 8, 8, 3)
    """
    workers = auto_workers() if num_workers is None else num_workers
    if workers < 1:
        raise OptionError(
            f"num_workers is {workers}, but must be 1 or more. Leave it out for auto."
        )
    most = _MOST_A_PROCESSOR * usable_processors()
    if workers > most:
        _log.warning(
            "%d loading threads are more than %d processors can use: %d serve",
            workers,
            usable_processors(),
            most,
        )
        workers = most
    check_decoder(decoder)
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    work = _Work(sources, tuple(preprocessings), known, decoder, limit, view or View(0))
    return _in_order(work, batches, workers)


def _in_order(
    work: _Work, batches: Sequence[Sequence[int]], workers: int
) -> Generator[Loaded, None, None]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="loading")
    ahead: deque[_Pending] = deque()
    try:
        for rows in batches:
            ahead.append(work.begin(rows, pool))
            if _enough(ahead, workers):
                yield ahead.popleft().finish()
        while ahead:
            yield ahead.popleft().finish()
    finally:
        pool.shutdown(cancel_futures=True)


def _enough(ahead: deque[_Pending], workers: int) -> bool:
    """Whether the threads stay busy when the oldest batch is handed over."""
    slots_left = sum(len(batch.slots) for batch in ahead) - len(ahead[0].slots)
    return len(ahead) > _BATCHES_AHEAD and slots_left >= _SLOTS_AHEAD * workers


@dataclass(frozen=True)
class _Pending:
    """A batch under way."""

    rows: NDArray[np.intp]
    images: dict[Preprocessing, NDArray[np.uint8]]
    slots: list[Future[Slot]]

    def finish(self) -> Loaded:
        began = time.perf_counter()
        slots = tuple(slot.result() for slot in self.slots)
        return Loaded(self.rows, self.images, slots, time.perf_counter() - began)


@dataclass(frozen=True)
class _Work:
    """What the threads do: the same for every slot of every batch."""

    sources: Sequence[Any]
    preprocessings: tuple[Preprocessing, ...]
    known: Callable[[bytes], bool] | None
    decoder: Decoder
    max_pixels: int
    view: View

    def begin(self, rows: Sequence[int], pool: Executor) -> _Pending:
        import numpy as np

        # Fresh arrays cost under 1 % of the work; a ring would need a call to release them.
        images = {
            preprocessing: np.empty((len(rows), *preprocessing.image_size, 3), dtype=np.uint8)
            for preprocessing in self.preprocessings
        }
        slots = [
            pool.submit(self.fill, row, {key: batch[slot] for key, batch in images.items()})
            for slot, row in enumerate(rows)
        ]
        return _Pending(np.asarray(rows, dtype=np.intp), images, slots)

    def fill(self, row: int, outs: _Outs) -> Slot:
        began = time.perf_counter()
        try:
            slot = self._filled(self.sources[row], outs)
        except Exception as error:
            error.add_note(f"while loading row {row}")
            raise
        if slot.state != "filled":
            for out in outs.values():
                out[...] = 0
        return replace(slot, seconds=time.perf_counter() - began)

    def _filled(self, source: Any, outs: _Outs) -> Slot:
        try:
            content = read(source)
        except UnreadableError as error:
            return Slot("failed", reason=error.reason, transient=error.transient)
        slot = Slot("filled", content.digest, content.size, content.mtime_ns)
        if self.known is not None and self.known(content.digest):
            return replace(slot, state="known")
        try:
            pixels = content.pixels(self.decoder, max_pixels=self.max_pixels)
        except UnreadableError as error:
            return replace(slot, state="failed", reason=error.reason, transient=error.transient)
        seen = self.view.of(pixels, content.digest)
        for preprocessing, out in outs.items():
            prepare(seen, preprocessing, out)
        return slot
