"""Feeds: where the inputs of a step come from, the boundary cache or the pictures themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from pipeline.cache import BoundaryCache
from pipeline.errors import BadInputError
from pipeline.inputs import Decoder, View, load
from pipeline.samples import SampleSet
from pipeline.spec import EmbeddingSpec

__all__ = ["BoundaryFeed", "Feed", "PictureFeed"]


class Feed(Protocol):
    """Gives the inputs of a `TunableNetwork`, batch by batch."""

    def inputs(self, batches: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, ...]]:
        """Give the inputs of each batch of rows.

        Parameters
        ----------
        batches : sequence of int64 Tensors
        epoch : int
            0 looks at the clean pictures, others at augmented ones in turn.
        """


@dataclass(frozen=True, eq=False)
class BoundaryFeed:
    """Reads what enters the trained blocks.

    Parameters
    ----------
    cache : BoundaryCache
    device : str
    """

    cache: BoundaryCache
    device: str

    def inputs(self, batches: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, ...]]:
        """See `Feed`."""
        view = turn(epoch, self.cache.contents.views)
        for rows in batches:
            entering, layers = self.cache.batch(view, rows.numpy())
            below = [layers[name] for name in self.cache.contents.layers]
            empty = np.empty((len(rows), 0), np.float16)
            yield (
                torch.from_numpy(entering).to(self.device).float(),
                torch.from_numpy(np.concatenate([empty, *below], axis=1)).to(self.device).float(),
            )


@dataclass(frozen=True, eq=False)
class PictureFeed:
    """Reads and augments the pictures anew.

    Parameters
    ----------
    samples : SampleSet
    spec : EmbeddingSpec
    views : sequence of View
        They take turns, the first being the clean one.
    device : str
    anew : bool
        Take a new view in every epoch, of the kind of the last of these.
    """

    samples: SampleSet
    spec: EmbeddingSpec
    views: Sequence[View]
    device: str
    anew: bool = False

    def inputs(self, batches: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, ...]]:
        """See `Feed`."""
        view = self.views[turn(epoch, len(self.views))]
        if self.anew:
            view = replace(self.views[-1], number=epoch)
        loading = load(
            self.samples.sources,
            [rows.tolist() for rows in batches],
            [self.spec.preprocess],
            decoder=cast("Decoder", self.spec.decoder),
            view=view,
        )
        for loaded in loading:
            failed = {
                self.samples.ids[row]: slot.reason
                for row, slot in zip(loaded.rows, loaded.slots, strict=True)
                if slot.state != "filled"
            }
            if failed:
                raise BadInputError(sorted(failed.items()))
            yield (torch.from_numpy(loaded.images[self.spec.preprocess]).to(self.device),)


def turn(epoch: int, views: int) -> int:
    """Say which of the views an epoch looks at; the clean one is for validation.

    Examples
    --------
    >>> [turn(epoch, 3) for epoch in range(5)], [turn(epoch, 1) for epoch in range(3)]
    ([0, 1, 2, 1, 2], [0, 0, 0])
    """
    return 0 if views == 1 or epoch == 0 else 1 + (epoch - 1) % (views - 1)
