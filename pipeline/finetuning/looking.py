"""Looking: what a network gives for every view of every row.

It is `extract` over the backbone cut at the boundary, one pass a view.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.backbones import Backbone, Cut, Layer
from pipeline.cache import BoundaryCache
from pipeline.errors import BadInputError
from pipeline.extraction import Extracted, auto_batch_size, extract, forward_of, plan_batches
from pipeline.finetuning.rows import TuningRows
from pipeline.inputs import View
from pipeline.memory import shown_bytes
from pipeline.progress import Progress
from pipeline.samples import SampleSet
from pipeline.spec import EmbeddingSpec

__all__ = ["Looking"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Looking:
    """A network at work on the rows of a tuning, frozen or tuned.

    Parameters
    ----------
    backbone : Backbone
    spec : EmbeddingSpec
        As this machine computes it.
    layers : dict of str to int
        Width of every layer that the heads take, by full name, bottom to top.
    device : str
    progress : bool
    """

    backbone: Backbone
    spec: EmbeddingSpec
    layers: Mapping[str, int]
    device: str
    progress: bool = False

    def of(self, backbone: Backbone) -> Looking:
        """Look with the same network of other weights."""
        spec = replace(self.spec, weights_digest=backbone.weights_digest)
        return replace(self, backbone=backbone, spec=spec)

    def vectors(self, samples: SampleSet, view: View | None = None) -> NDArray[np.float32]:
        """Give the layers of all rows: shape (n_samples, n_features)."""
        X = np.empty((len(samples), sum(self.layers.values())), np.float32)
        for batch in self._passing(samples, self.backbone, self.layers, view):
            X[batch.rows] = self._joined(batch)
        return X

    def boundary(
        self,
        rows: TuningRows,
        cut: Cut,
        path: Path,
        key: str,
        count: int,
        views: Callable[[NDArray[np.float32]], Sequence[View]],
    ) -> tuple[BoundaryCache, NDArray[np.float32]]:
        """Keep what enters the trained blocks; give it with the layers of the clean view.

        Parameters
        ----------
        rows : TuningRows
        cut : Cut
        path : Path
            A cache of the same key that stands there is taken as it is.
        key : str
        count : int
            How many views there are.
        views : callable
            Gives them all, once it is given the layers of the clean one, the first.
        """
        assert cut.entrance is not None
        found = BoundaryCache.open(path, key)
        if found is not None:
            return found, self.vectors(rows.samples)
        below = {f"{self.backbone.name}/{layer.name}": layer.width for layer in cut.below}
        size = BoundaryCache.size(len(rows.samples), cut.entrance_shape, below, count)
        _log.info(
            "%d views of %d pictures at the end of %s: %s in %s, deleted at the end",
            count, len(rows.samples), cut.entrance.module, shown_bytes(size), path,
        )  # fmt: skip
        X = np.empty((len(rows.samples), sum(self.layers.values())), np.float32)
        with BoundaryCache.write(
            path, key, rows.samples.ids, _as_array(rows.digests), cut.entrance.module,
            cut.entrance_shape, below, count,
        ) as writer:  # fmt: skip
            for batch in self._entering(rows.samples, cut.entrance, self.layers, View(0)):
                writer.put(0, batch.rows, batch.layers[self._name(cut.entrance)], batch.layers)
                X[batch.rows] = self._joined(batch)
            for place, view in list(enumerate(views(X)))[1:] if count > 1 else ():
                for batch in self._entering(rows.samples, cut.entrance, below, view):
                    entering = batch.layers[self._name(cut.entrance)]
                    writer.put(place, batch.rows, entering, batch.layers)
        found = BoundaryCache.open(path, key)
        assert found is not None
        return found, X

    def _name(self, layer: Layer) -> str:
        return f"{self.backbone.name}/{layer.name}"

    def _entering(
        self, samples: SampleSet, entrance: Layer, layers: Mapping[str, int], view: View
    ) -> Iterator[Extracted]:
        """Pass with one more layer, what comes out at the boundary as it is."""
        backbone = self.backbone.tapped_also(entrance)
        widths = {**layers, self._name(entrance): entrance.width}
        names = map(self._name, backbone.layers.values())
        upwards = {name: widths[name] for name in names if name in widths}
        return self._passing(samples, backbone, upwards, view)

    def _passing(
        self, samples: SampleSet, backbone: Backbone, layers: Mapping[str, int], view: View | None
    ) -> Iterator[Extracted]:
        forward = forward_of(
            self.spec, layers, lambda: backbone, device=self.device, n_images=len(samples)
        )
        batches = plan_batches(range(len(samples)), auto_batch_size(self.device))
        with Progress(len(samples), "images", visible=self.progress) as shown:
            for batch in extract(samples, [forward], batches, view=view):
                if batch.failed:
                    raise BadInputError(sorted(batch.failed.items()))
                yield batch
                shown.advance(len(batch.rows))

    def _joined(self, batch: Extracted) -> NDArray[np.floating]:
        return np.concatenate([batch.layers[name] for name in self.layers], axis=1)


def _as_array(digests: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), -1)
