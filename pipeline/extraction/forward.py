"""Forward: one backbone at work, from a batch of pictures to the stored values of its layers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.backbones import EngineMemoryError, PreparedGraph, forget, prepared_engine
from pipeline.errors import BackboneError
from pipeline.spec import EmbeddingSpec, Preprocessing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.backbones import Backbone, Engine, Pending

__all__ = ["Forward", "Running", "forward_of"]

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Forward:
    """One backbone at work.

    Parameters
    ----------
    engine : Engine
        Runs the network.
    spec : EmbeddingSpec
        What its numbers depend on.
    layers : dict of str to int
        Width of every layer in the order in which the engine packs them, by full name.
    limit : int, optional
        Most pictures at once, once memory has run out.
    """

    engine: Engine
    spec: EmbeddingSpec
    layers: Mapping[str, int]
    limit: int | None = None

    @property
    def preprocess(self) -> Preprocessing:
        """From picture to input."""
        return self.spec.preprocess

    def begin(
        self, pictures: NDArray[np.uint8], ids: Sequence[str], filled: NDArray[np.bool_]
    ) -> Running:
        """Start on a batch.

        Parameters
        ----------
        pictures : uint8 array of shape (batch, height, width, 3)
        ids : sequence of str
            Names of the pictures, for errors.
        filled : bool array of shape (batch,)
            Which slots hold a picture; the values of the others are meaningless.
        """
        pending = None
        if self.limit is None:
            with suppress(EngineMemoryError):  # it is tried again in pieces
                pending = self.engine.begin(pictures)
        return Running(self, pictures, ids, filled, pending)

    def embed_in_pieces(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the engine where memory has run out: in smaller batches, from then on.

        Raises
        ------
        BackboneError
            When there is none for a single picture.
        """
        size = self.limit or max(1, len(pictures) // 2)
        while size:
            try:
                starts = range(0, len(pictures), size)
                pieces = [self.engine.embed(pictures[start : start + size]) for start in starts]
                break
            except EngineMemoryError:
                size //= 2
        else:
            raise BackboneError(
                "the device has no memory for even one picture. Take a smaller backbone or image "
                "size, or another device."
            )
        if size != self.limit:
            first = self.limit or len(pictures)
            _log.warning("memory ran out at %d pictures: going on with %d", first, size)
            self.limit = size
        return np.concatenate(pieces)

    def stored(
        self, packed: NDArray[np.float32], ids: Sequence[str], filled: NDArray[np.bool_]
    ) -> dict[str, NDArray[np.floating]]:
        """Give each layer of packed vectors in the spec's store dtype.

        Raises
        ------
        BackboneError
            When a value is not finite or does not fit the store dtype.
        """
        self._check(packed, ids, filled)
        stored, start = {}, 0
        for layer, width in self.layers.items():
            values = packed[:, start : start + width]
            with np.errstate(over="ignore"):  # in empty slots, whose values nobody reads
                stored[layer] = values.astype(self.spec.store_dtype)
            start += width
        return stored

    def _check(
        self, packed: NDArray[np.float32], ids: Sequence[str], filled: NDArray[np.bool_]
    ) -> None:
        most = np.finfo(self.spec.store_dtype).max
        with np.errstate(invalid="ignore"):
            sound = np.abs(packed) <= most  # NaN is not
        if sound[filled].all():
            return
        row, column = np.argwhere(~sound & filled[:, None])[0]
        ends = np.cumsum(list(self.layers.values()))
        layer = list(self.layers)[int(np.searchsorted(ends, column, side="right"))]
        raise BackboneError(self._unsound(ids[row], layer, float(packed[row, column])))

    def _unsound(self, name: str, layer: str, value: float) -> str:
        found = f"layer {layer} of {name!r} holds {value:.6g}"
        if np.isfinite(value):
            most = np.finfo(self.spec.store_dtype).max
            return (
                f"{found}, but {self.spec.store_dtype} stores at most {most:.6g}. Store wider "
                "numbers: --store-dtype float32."
            )
        way_out = "Take the input out, or look whether the weights are damaged."
        if self.spec.precision != "float32":
            way_out = "Compute more exactly: --precision float32."
        return f"{found}: the network gives no finite number for this input. {way_out}"


@dataclass(frozen=True, eq=False)
class Running:
    """A batch that a backbone is at work on; None pending where memory ran out at once."""

    forward: Forward
    pictures: NDArray[np.uint8]
    ids: Sequence[str]
    filled: NDArray[np.bool_]
    pending: Pending | None

    def result(self) -> dict[str, NDArray[np.floating]]:
        """Wait for the batch, and give its layers; see `Forward.stored`."""
        return self.forward.stored(self._packed(), self.ids, self.filled)

    def abandon(self) -> None:
        """Wait until the device is done with the pictures, whose memory it reads."""
        if self.pending is not None:
            with suppress(Exception):
                self.pending.result()

    def _packed(self) -> NDArray[np.float32]:
        if self.pending is not None:
            with suppress(EngineMemoryError):
                return self.pending.result()
        return self.forward.embed_in_pieces(self.pictures)


def forward_of(
    spec: EmbeddingSpec,
    layers: Mapping[str, int],
    load: Callable[[], Backbone],
    *,
    device: str,
    forward_cache: bool = True,
    n_images: int = 0,
) -> Forward:
    """Put a backbone to work; where its graph lies prepared, without building the network.

    Parameters
    ----------
    spec : EmbeddingSpec
    layers : dict of str to int
        Width of every layer to compute, by full name, bottom to top.
    load : callable
        Builds the backbone.
    device : str
        A resolved device.
    forward_cache : bool
        Whether the prepared graph is looked for, and kept.
    n_images : int
        How many pictures are to come: some engines are repaid by many.

    Raises
    ------
    BackboneError
        When the network that is built is not that of the spec.
    """
    taps = tuple(name.rpartition("/")[2] for name in layers)
    if forward_cache:
        prepared = PreparedGraph(
            spec.weights_digest, spec.preprocess, spec.pooling, taps, spec.precision
        )
        found = prepared_engine(prepared, device)
        if found is not None:
            return Forward(found, spec, layers)
    backbone = load()
    if backbone.weights_digest != spec.weights_digest:
        forget(spec.weights_digest)
        raise BackboneError(
            f"the weights of {spec.backbone} are no longer those that were described: digest "
            f"{backbone.weights_digest} instead of {spec.weights_digest}. The description is "
            "removed: give the same command again."
        )
    engine = backbone.engine(
        taps,
        device=device,
        precision=spec.precision,
        forward_cache=forward_cache,
        n_images=n_images,
    )
    return Forward(engine, spec, layers)
