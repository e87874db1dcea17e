"""ContentCache: embeddings looked up by what the inputs hold, whatever they are called.

The scikit-learn doors fetch from it, so that each picture is embedded once however many
folds, clones and processes ask for it.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.backbones import choose_layers
from pipeline.cache import CacheLock, EmbeddingStore, digests_of
from pipeline.config import EmbedOptions
from pipeline.embedding.job import EmbeddingJob
from pipeline.embedding.wanted import wanted_backbones
from pipeline.errors import BadInputError
from pipeline.inputs import digest_all
from pipeline.samples import SampleSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.backbones import Backbone
    from pipeline.spec import EmbeddingSpec

__all__ = ["ContentCache", "Fetched"]


@dataclass(frozen=True, eq=False)
class Fetched:
    """Embeddings of some inputs.

    Parameters
    ----------
    X : float32 array of shape (n_usable, n_features)
        Only the inputs that could be embedded, in order.
    usable : bool array of shape (n_samples,)
        Which inputs these are.
    layer_slices : dict of str to slice
        Columns of each layer, bottom to top.
    digests : list of bytes
        Content of every usable input.
    """

    X: NDArray[np.float32]
    usable: NDArray[np.bool_]
    layer_slices: Mapping[str, slice]
    digests: list[bytes]


class ContentCache:
    """A cache whose ids are content digests; nothing in it is ever dropped.

    Parameters
    ----------
    folder : Path or None
        Where ``<spec key>.h5`` stands; None: a temporary folder of this process, removed
        at exit.
    backbone : str or Backbone
    layers : str or sequence of str
        What `fetch` gives; all taps are stored.
    options : EmbedOptions
    """

    def __init__(
        self,
        folder: Path | None,
        backbone: str | Backbone,
        layers: str | Sequence[str],
        options: EmbedOptions,
    ) -> None:
        self.options = replace(options, layers="all", on_bad_input="skip")
        if not isinstance(backbone, str) and options.resize == "crop":  # the doors' default
            self.options = replace(self.options, resize=None)
        (self.wanted,) = wanted_backbones(backbone, self.options, None)
        self.backbone = backbone
        name = self.wanted.spec.backbone
        taps = {layer.rpartition("/")[2]: width for layer, width in self.wanted.layers.items()}
        chosen = choose_layers(self.wanted.described, layers, name)
        self.layers = {f"{name}/{tap}": taps[tap] for tap in chosen}
        self.path = (folder or _temporary_folder()) / f"{self.wanted.spec.key()}.h5"

    @property
    def spec(self) -> EmbeddingSpec:
        """What the numbers depend on."""
        return self.wanted.spec

    @property
    def weights(self) -> str:
        """Where the backbone's weights came from."""
        return self.wanted.weights

    def fetch(self, sources: Sequence[Any], *, skip: bool = False) -> Fetched:
        """Look inputs up by content, and embed those that are not there yet.

        Parameters
        ----------
        sources : sequence of paths, PIL images or uint8 arrays
        skip : bool
            Leave out what cannot be embedded, instead of refusing all.

        Raises
        ------
        BadInputError
            Naming every input that cannot be embedded.
        """
        samples = SampleSet.from_list(sources)
        digests, failures = _digests(samples)
        self._embed_missing(samples, digests)
        with EmbeddingStore.open(self.path, expect=self.spec) as store:
            rows = {digest: row for row, digest in enumerate(digests_of(store.inputs))}
            reasons = {failure.id: failure.reason for failure in store.failed}
            for name, digest in zip(samples.ids, digests, strict=True):
                if digest is not None and digest not in rows:
                    failures[name] = reasons.get(digest.hex(), "it changed while it was read")
            if failures and not skip:
                raise BadInputError(sorted(failures.items()))
            usable = np.array([name not in failures for name in samples.ids], bool)
            held = [digest for digest in digests if digest is not None and digest in rows]
            X, slices = store.matrix(list(self.layers), [rows[digest] for digest in held])
        return Fetched(X, usable, slices, held)

    def _embed_missing(self, samples: SampleSet, digests: Sequence[bytes | None]) -> None:
        if not self._missing(samples, digests) and self.path.exists():
            return
        with CacheLock(self.path, wait=True):
            missing = self._missing(samples, digests)  # another process may have been here
            if not missing and self.path.exists():
                return
            own = SampleSet(ids=tuple(missing), sources=tuple(missing.values()))
            job = EmbeddingJob(own, self.path, self.options, self.backbone, keep=True)
            job.prepare()
            job.execute()

    def _missing(self, samples: SampleSet, digests: Sequence[bytes | None]) -> dict[str, Any]:
        """List the sources whose content has neither a row nor a lasting reason, by digest."""
        held: set[bytes] = set()
        if self.path.exists():
            with EmbeddingStore.open(self.path) as store:
                held |= {*digests_of(store.inputs), *(failed.digest for failed in store.failed)}
        pairs = zip(digests, samples.sources, strict=True)
        return {
            digest.hex(): source
            for digest, source in pairs
            if digest is not None and digest not in held
        }


def _digests(samples: SampleSet) -> tuple[list[bytes | None], dict[str, str]]:
    """Digest every input; None, and a reason, for one that cannot be read."""
    found = digest_all(samples.sources)
    reasons = {n: reason for n, (_, reason) in zip(samples.ids, found, strict=True) if reason}
    return [digest for digest, _ in found], dict(samples.failed) | reasons


@cache
def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="transfer-pipeline-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
