"""Forward: one backbone at work, from a batch of pictures to the stored values of its layers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.backbones import EngineMemoryError, PreparedGraph, prepared_engine
from pipeline.errors import BackboneError
from pipeline.spec import EmbeddingSpec, Preprocessing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.backbones import Backbone, Engine

__all__ = ["Forward", "forward_of"]

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

    def run(
        self, pictures: NDArray[np.uint8], ids: Sequence[str], filled: NDArray[np.bool_]
    ) -> dict[str, NDArray[np.floating]]:
        """Embed a batch and give each layer in the spec's store dtype.

        Parameters
        ----------
        pictures : uint8 array of shape (batch, height, width, 3)
        ids : sequence of str
            Names of the pictures, for errors.
        filled : bool array of shape (batch,)
            Which slots hold a picture; the values of the others are meaningless.

        Raises
        ------
        BackboneError
            When a value is not finite or does not fit the store dtype.
        """
        packed = self._embed(pictures)
        self._check(packed, ids, filled)
        stored, start = {}, 0
        for layer, width in self.layers.items():
            values = packed[:, start : start + width]
            with np.errstate(over="ignore"):  # in empty slots, whose values nobody reads
                stored[layer] = values.astype(self.spec.store_dtype)
            start += width
        return stored

    def _embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the engine; where memory runs out, in smaller batches from then on."""
        first = size = self.limit or len(pictures)
        while True:
            try:
                starts = range(0, len(pictures), size)
                pieces = [self.engine.embed(pictures[start : start + size]) for start in starts]
                break
            except EngineMemoryError as error:
                if size == 1:
                    raise BackboneError(
                        "the device has no memory for even one picture. Take a smaller backbone "
                        "or image size, or another device."
                    ) from error
                size //= 2
        if size < first:
            self.limit = size
            _log.warning("memory ran out at %d pictures: going on with %d", first, size)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

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


def forward_of(
    spec: EmbeddingSpec,
    layers: Mapping[str, int],
    load: Callable[[], Backbone],
    *,
    device: str,
    forward_cache: bool = True,
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
    """
    taps = tuple(name.rpartition("/")[2] for name in layers)
    if forward_cache:
        prepared = PreparedGraph(
            spec.weights_digest, spec.preprocess, spec.pooling, taps, spec.precision
        )
        found = prepared_engine(prepared, device)
        if found is not None:
            return Forward(found, spec, layers)
    engine = load().engine(
        taps, device=device, precision=spec.precision, forward_cache=forward_cache
    )
    return Forward(engine, spec, layers)
