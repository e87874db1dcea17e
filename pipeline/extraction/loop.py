"""extract(): the one loop that reads, batches, runs and pools.

Everything that turns inputs into embeddings goes through it: `embed` by way of parts,
`predict` into memory. Two such loops are how rows shift.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Self, cast

import numpy as np

from pipeline.cache import INPUT, Failure
from pipeline.errors import OptionError
from pipeline.extraction.clock import Clock
from pipeline.extraction.forward import Forward, Running
from pipeline.inputs import Decoder, Loaded, View, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.samples import SampleSet

__all__ = ["Extracted", "auto_batch_size", "extract", "plan_batches"]

_CPU_BATCH = 16
_GPU_BATCH = 256


class Extracted(NamedTuple):
    """One batch, every slot in its place.

    Parameters
    ----------
    rows : int array of shape (batch,)
        Rows of the sample set.
    ids : tuple of str
    inputs : `INPUT` array of shape (batch,)
        What each row was made of.
    layers : dict of str to array of shape (batch, width)
        Values in the spec's store dtype; those of failed and copied slots mean nothing.
    failed : dict of str to str
        Reason by id.
    copied : tuple of str
        Ids whose content is held already: they were not embedded.
    """

    rows: NDArray[np.intp]
    ids: tuple[str, ...]
    inputs: NDArray[np.void]
    layers: dict[str, NDArray[np.floating]]
    failed: dict[str, str]
    copied: tuple[str, ...]

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which slots hold vectors."""
        without = self.failed.keys() | set(self.copied)
        return np.array([name not in without for name in self.ids], dtype=bool)


def auto_batch_size(device: str) -> int:
    """Give the batch size of a device: 16 on a processor, where larger ones gain nothing, else 256.

    Examples
    --------
    >>> auto_batch_size("cpu")
    16
    """
    return _CPU_BATCH if device == "cpu" else _GPU_BATCH


def plan_batches(rows: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut rows into batches, once: every resume sees the same ones.

    Examples
    --------
    >>> plan_batches([0, 1, 4, 5, 6], 2)
    [[0, 1], [4, 5], [6]]
    """
    return [list(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]


def extract(
    samples: SampleSet,
    forwards: Sequence[Forward],
    batches: Sequence[Sequence[int]],
    *,
    known: Callable[[bytes], bool] | None = None,
    num_workers: int | None = None,
    max_pixels: int | None = None,
    view: View | None = None,
    clock: Clock | None = None,
) -> Generator[Extracted, None, None]:
    """Embed planned batches of a sample set.

    Parameters
    ----------
    samples : SampleSet
    forwards : sequence of Forward
        The backbones at work; they share one decoding of each input.
    batches : sequence of sequences of int
        Rows of ``samples``, as `plan_batches` gives them.
    known : callable of bytes to bool, optional
        Whether the embedding of a content digest is held already.
    num_workers : int, optional
        Loading threads. The values do not depend on it.
    max_pixels : int, optional
        Larger pictures are refused.
    view : View, optional
        How every picture is looked at; the clean one when not given. ``known`` goes with the
        clean one alone: a digest names a content, not a view of it.
    clock : Clock, optional
        Counts where the time goes.

    Yields
    ------
    Extracted
        One a batch, in order.

    Raises
    ------
    BackboneError
        When a network gives values that cannot be stored.
    OptionError
        When the specs of the backbones name different decoders.
    """
    clock = clock or Clock()
    decoder = _one_decoder(forwards)
    preprocessings = list(dict.fromkeys(forward.preprocess for forward in forwards))
    with clock.spent_on("start"):  # the decoder may have to be imported
        loading = load(
            samples.sources,
            batches,
            preprocessings,
            known=known,
            num_workers=num_workers,
            decoder=decoder,
            max_pixels=max_pixels,
            view=view,
        )
    depth = min(forward.engine.depth for forward in forwards)
    under_way: deque[_UnderWay] = deque()
    with closing(loading):
        try:
            for loaded in loading:
                clock.wait += loaded.waited
                clock.decode += loaded.seconds
                with clock.spent_on("forward"):
                    under_way.append(_UnderWay.of(loaded, samples))
                    under_way[-1].begin(forwards)
                    done = under_way[0].finish() if len(under_way) >= depth else None
                if done is not None:
                    under_way.popleft()
                    yield done
            while under_way:
                with clock.spent_on("forward"):
                    done = under_way[0].finish()
                under_way.popleft()
                yield done
        finally:
            for batch in under_way:
                batch.abandon()


@dataclass(frozen=True)
class _UnderWay:
    """A batch that the backbones are at work on."""

    loaded: Loaded
    ids: tuple[str, ...]
    running: list[Running] = field(default_factory=list)
    layers: dict[str, NDArray[np.floating]] = field(default_factory=dict)

    @classmethod
    def of(cls, loaded: Loaded, samples: SampleSet) -> Self:
        return cls(loaded, tuple(samples.ids[row] for row in loaded.rows))

    def begin(self, forwards: Sequence[Forward]) -> None:
        """Start every backbone on it; where no slot is filled, there is nothing to run."""
        filled = self.loaded.mask
        for forward in forwards:
            if filled.any():
                pictures = self.loaded.images[forward.preprocess]
                self.running.append(forward.begin(pictures, self.ids, filled))
            else:
                dtype, n = forward.spec.store_dtype, len(self.ids)
                self.layers.update({k: np.zeros((n, w), dtype) for k, w in forward.layers.items()})

    def finish(self) -> Extracted:
        for running in self.running:
            self.layers.update(running.result())
        return _extracted(self.loaded, self.ids, self.layers)

    def abandon(self) -> None:
        for running in self.running:
            running.abandon()


def _one_decoder(forwards: Sequence[Forward]) -> Decoder:
    decoders = sorted({forward.spec.decoder for forward in forwards})
    if len(decoders) > 1:
        raise OptionError(
            f"the backbones want the decoders {' and '.join(decoders)}, but one decoding of a "
            "picture serves them all. Embed them into caches of their own."
        )
    return cast("Decoder", decoders[0])


def _extracted(
    loaded: Loaded, ids: tuple[str, ...], layers: dict[str, NDArray[np.floating]]
) -> Extracted:
    inputs = np.zeros(len(ids), INPUT)
    failed: dict[str, str] = {}
    for place, (name, slot) in enumerate(zip(ids, loaded.slots, strict=True)):
        found = (slot.digest, slot.size, slot.mtime_ns)
        if slot.state == "failed":
            failed[name] = slot.reason
            if slot.transient:  # matches no content, so that the next run tries again
                nothing = Failure(name, slot.reason)
                found = (nothing.digest, nothing.size, nothing.mtime_ns)
        digest, size, mtime_ns = found
        inputs[place] = (np.frombuffer(digest, np.uint8), size, mtime_ns)
    copied = tuple(
        name for name, slot in zip(ids, loaded.slots, strict=True) if slot.state == "known"
    )
    return Extracted(loaded.rows, ids, inputs, layers, failed, copied)
