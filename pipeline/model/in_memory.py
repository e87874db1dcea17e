"""Inputs to a matrix in memory: the extraction loop with memory as its sink."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline.backbones import Backbone, resolve_device
from pipeline.extraction import auto_batch_size, extract, forward_of, plan_batches
from pipeline.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.samples import SampleSet
    from pipeline.spec import EmbeddingSpec

__all__ = ["Embedded", "embed_in_memory"]


@dataclass(frozen=True, eq=False)
class Embedded:
    """Layers of some inputs, side by side.

    Parameters
    ----------
    X : float32 array of shape (n_usable, n_features)
        Only the rows that could be embedded, in order.
    usable : bool array of shape (n_samples,)
        Which inputs these are.
    failed : dict of str to str
        Reason by id of the others.
    digests : list of bytes
        Content of every usable row.
    """

    X: NDArray[np.float32]
    usable: NDArray[np.bool_]
    failed: Mapping[str, str]
    digests: Sequence[bytes]


def embed_in_memory(
    samples: SampleSet,
    specs: Mapping[str, EmbeddingSpec],
    layers: Mapping[str, int],
    load: Callable[[str], Backbone],
    *,
    own_modules: Container[str] = (),
    device: str = "auto",
    batch_size: int | None = None,
    max_pixels: int | None = None,
    progress: bool = False,
) -> Embedded:
    """Embed inputs as `embed` would, and keep the vectors in memory.

    Parameters
    ----------
    samples : SampleSet
    specs : dict of str to EmbeddingSpec
        By backbone.
    layers : dict of str to int
        Width of every layer, by full name, in the order in which they shall stand.
    load : callable of str to Backbone
        Builds a backbone by its name, where its graph does not lie prepared.
    own_modules : container of str
        Backbones that are modules of the user's own.
    device, batch_size, max_pixels, progress
        As for `embed`.
    """
    device = resolve_device(device)
    forwards = [
        forward_of(
            spec,
            own,
            partial(load, name),
            device=device,
            forward_cache=name not in own_modules,
            n_images=len(samples),
        )
        for name, spec in specs.items()
        if (own := {layer: width for layer, width in layers.items() if _owner(layer) == name})
    ]
    batches = plan_batches(range(len(samples)), batch_size or auto_batch_size(device))
    X = np.empty((len(samples), sum(layers.values())), np.float32)
    usable = np.zeros(len(samples), bool)
    digests = np.zeros((len(samples), 16), np.uint8)
    failed = dict(samples.failed)
    with Progress(len(samples), "images", visible=progress) as shown:
        for batch in extract(samples, forwards, batches, max_pixels=max_pixels):
            X[batch.rows] = np.concatenate([batch.layers[layer] for layer in layers], axis=1)
            usable[batch.rows] = batch.filled
            digests[batch.rows] = batch.inputs["digest"]
            failed |= batch.failed
            shown.advance(len(batch.rows))
    return Embedded(X[usable], usable, failed, [bytes(row) for row in digests[usable]])


def _owner(layer: str) -> str:
    return layer.rpartition("/")[0]
