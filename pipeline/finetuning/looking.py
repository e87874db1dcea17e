"""Looking: what the frozen blocks give for every view of every row.

It is `extract` over the backbone cut at the boundary, one pass a view.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.backbones import Backbone, Cut
from pipeline.cache import BoundaryCache
from pipeline.errors import BackboneError, BadInputError
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
    """The frozen network at work on the rows of a tuning.

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

    def vectors(self, samples: SampleSet, view: View | None = None) -> NDArray[np.float32]:
        """Give the layers of all rows: shape (n_samples, n_features)."""
        X = np.empty((len(samples), sum(self.layers.values())), np.float32)
        for batch in self._passing(samples, self.backbone, self.layers, view):
            X[batch.rows] = self._joined(batch)
        return X

    def boundary(
        self, rows: TuningRows, cut: Cut, path: Path, key: str, views: list[View]
    ) -> tuple[BoundaryCache, NDArray[np.float32]]:
        """Keep what enters the trained blocks; give it with the layers of the clean view.

        Parameters
        ----------
        rows : TuningRows
        cut : Cut
        path : Path
            A cache of the same key that stands there is taken as it is.
        key : str
        views : list of View
            The first is the clean one.
        """
        found = BoundaryCache.open(path, key)
        if found is not None:
            return found, self.vectors(rows.samples)
        assert cut.entrance is not None
        entrance, shape = f"{self.backbone.name}/{cut.entrance.name}", cut.entrance_shape
        below = {f"{self.backbone.name}/{layer.name}": layer.width for layer in cut.below}
        size = BoundaryCache.size(len(rows.samples), shape, below, len(views))
        _log.info(
            "%d views of %d pictures at the end of %s: %s in %s, deleted at the end",
            len(views),
            len(rows.samples),
            cut.entrance.module,
            shown_bytes(size),
            path,
        )
        backbone = self.backbone.tapped_also(cut.entrance)
        X = np.empty((len(rows.samples), sum(self.layers.values())), np.float32)
        with BoundaryCache.write(
            path, key, rows.samples.ids, _as_array(rows.digests), cut.entrance.module, shape,
            below, len(views),
        ) as writer:  # fmt: skip
            for place, view in enumerate(views):
                layers = self._with(cut, entrance, below if place else self.layers)
                for batch in self._passing(rows.samples, backbone, layers, view):
                    entering = _half(batch.layers[entrance], entrance)
                    own = {name: batch.layers[name] for name in below}
                    writer.put(place, batch.rows, entering.reshape(-1, *shape), own)
                    if not place:
                        X[batch.rows] = self._joined(batch)
        found = BoundaryCache.open(path, key)
        assert found is not None
        return found, X

    def _with(self, cut: Cut, entrance: str, layers: Mapping[str, int]) -> dict[str, int]:
        """Put the entrance in its place among the layers, bottom to top."""
        assert cut.entrance is not None
        own = self.backbone.tapped_also(cut.entrance).layers
        chosen = {**layers, entrance: cut.entrance.width}
        names = (f"{self.backbone.name}/{tap}" for tap in own)
        return {name: chosen[name] for name in names if name in chosen}

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


def _half(values: NDArray[np.floating], name: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise BackboneError(
            f"{name} holds values beyond what float16 stores (65,504), which the boundary cache "
            "needs. Do without it: --no-boundary-cache."
        )
    return half
