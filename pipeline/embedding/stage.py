"""embed(): stage 1, from inputs to a finished cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cache import CacheLock, EmbeddingStore
from pipeline.config import EmbedOptions
from pipeline.embedding.job import EmbeddingJob

if TYPE_CHECKING:
    from pipeline.backbones import Backbone
    from pipeline.samples import SampleSet

__all__ = ["embed"]


def embed(
    samples: SampleSet,
    backbones: str | Backbone | Sequence[str | Backbone] | None = None,
    cache: str | Path = "cache.h5",
    *,
    options: EmbedOptions | None = None,
    keep: bool = False,
    progress: bool = False,
) -> EmbeddingStore:
    """Run frozen backbones over the inputs and cache the embeddings of their layers.

    What the cache holds already is not computed again; what a killed run has finished is
    taken from its parts. Another process that writes the same cache is waited for.

    Parameters
    ----------
    samples : SampleSet
        The inputs; their labels are stored beside the layers.
    backbones : str, Backbone or sequence of them, optional
        By default those of the cache, else ``efficientnet_lite0``.
    cache : path
        The HDF5 file to make or to extend.
    options : EmbedOptions, optional
        Layers, pooling, precision, ...
    keep : bool
        Keep the rows of inputs that are not in ``samples``; labels are not stored then.
    progress : bool
        Show how far it is.

    Returns
    -------
    EmbeddingStore
        The finished cache, open.

    Raises
    ------
    CacheMismatchError
        When the cache holds the backbone under another spec.
    BadInputError
        Under ``on_bad_input="fail"``, naming every bad input.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from pipeline.backbones import load_backbone
    >>> from pipeline.samples import SampleSet
    >>> pictures = np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3), dtype=np.uint8)
    >>> backbone = load_backbone("timm/test_resnet", weights=None)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = embed(SampleSet.from_arrays(pictures), backbone, f"{folder}/cache.h5")
    ...     X, layer_slices = store.matrix()
    ...     store.close()
    >>> X.shape
    (3, 464)
    """
    job = EmbeddingJob(samples, Path(cache), options or EmbedOptions(), backbones, keep=keep)
    with CacheLock(cache, wait=True):
        job.prepare()
        job.execute(progress=progress)
    return EmbeddingStore.open(cache)
