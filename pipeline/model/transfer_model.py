"""TransferModel: backbones, layers and one head per target; what a user takes away."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.backbones import Backbone, load_backbone, resolve_device, resolve_precision
from pipeline.cache import EmbeddingStore
from pipeline.errors import BadInputError, CacheMismatchError, OptionError
from pipeline.model.in_memory import Embedded, embed_in_memory
from pipeline.results import TargetResults
from pipeline.samples import SampleSet, Split
from pipeline.spec import EmbeddingSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TransferModel"]

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class TransferModel:
    """A trained model: give it pictures, it gives labels.

    `train` makes one, `load` reads one from its file. Networks are built on first use.

    Parameters
    ----------
    specs : dict of str to EmbeddingSpec
        How each backbone's vectors are made.
    layers : dict of str to int
        Width of every layer that the heads take, in the order of their columns.
    heads : dict of str to predictor
        A fitted scikit-learn Pipeline of fuser and head for each target.
    results : dict of str to TargetResults
        What is known of each head.
    split : Split, optional
        Which rows were trained on.
    weights : dict of str to str
        Where the weights of a backbone came from, unless its name says it.
    states : dict of str to dict of arrays
        Weights that travel with the model, by backbone.

    Examples
    --------
    >>> model = TransferModel.load("model.safetensors")  # doctest: +SKIP
    >>> model.predict(["new/1.jpg", "new/2.jpg"])  # doctest: +SKIP
    array(['owl', 'elk'], dtype='<U3')
    """

    specs: dict[str, EmbeddingSpec]
    layers: dict[str, int]
    heads: dict[str, Any]
    results: dict[str, TargetResults]
    split: Split | None = None
    weights: dict[str, str] = field(default_factory=dict)
    states: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)
    given: dict[str, Backbone] = field(default_factory=dict, repr=False)

    @cached_property
    def backbones(self) -> dict[str, Backbone]:
        """The frozen networks by name; built when first asked for.

        Raises
        ------
        CacheMismatchError
            When a network here is not the one that the heads were trained on.
        """
        return {name: self._backbone(name) for name in self.specs}

    def _backbone(self, name: str) -> Backbone:
        spec = self.specs[name]
        backbone = self.given.get(name)
        if backbone is None:
            if self.weights.get(name) == "module":
                raise OptionError(
                    f"the model was trained on a module of your own, {name!r}, which is not in "
                    "its file. Give it: TransferModel.load(path, backbone=load_backbone(module, "
                    f"name={name!r}, ...))."
                )
            height, width = spec.preprocess.image_size
            backbone = load_backbone(
                name,
                weights=self.states.get(name, self.weights.get(name, "default")),
                pooling=spec.pooling,
                image_size=height if height == width else None,
                resize=spec.preprocess.resize,
            )
        found = dataclasses.replace(
            spec,
            weights_digest=backbone.weights_digest,
            preprocess=backbone.preprocess,
            pooling=backbone.pooling,
        )
        if found != spec:
            raise CacheMismatchError(f"the backbone {name}", found.difference(spec))
        return backbone

    def predict(
        self,
        X: SampleSet | EmbeddingStore | Sequence[Any] | str | Path,
        *,
        on_bad_input: str = "fail",
        **options: Any,
    ) -> Any:
        """Predict labels or numbers.

        Parameters
        ----------
        X : SampleSet, EmbeddingStore, source, or sequence of paths, PIL images or arrays
            Inputs, or their embeddings from a cache of the same spec.
        on_bad_input : {"fail", "skip"}
            ``skip`` gives None (NaN for a number) for an input that cannot be read.
        **options
            ``device``, ``batch_size``, ``progress``.

        Returns
        -------
        array of shape (n_samples,), or dict of them
            In the dtype of the labels; a dict by target where the model has several.

        Raises
        ------
        BadInputError
            Under ``fail``, naming every input that cannot be read.
        CacheMismatchError
            When a cache was made by another spec.
        """
        embedded = self.embed(X, on_bad_input=on_bad_input, **options)
        return _only(
            {
                name: spread(head.predict(embedded.X), embedded.usable, self.results[name].kind)
                for name, head in self.heads.items()
            }
        )

    def predict_proba(
        self,
        X: SampleSet | EmbeddingStore | Sequence[Any] | str | Path,
        *,
        on_bad_input: str = "fail",
        **options: Any,
    ) -> Any:
        """Give class probabilities; parameters as for `predict`.

        Returns
        -------
        float array of shape (n_samples, n_classes), or dict of them
            Columns in the order of ``classes_``; NaN rows for skipped inputs.
        """
        numbers = [name for name in self.heads if self.results[name].kind == "number"]
        if numbers:
            raise OptionError(
                f"target {numbers[0]!r} is a number, and has no probabilities. Use predict."
            )
        embedded = self.embed(X, on_bad_input=on_bad_input, **options)
        return _only(
            {
                name: spread(head.predict_proba(embedded.X), embedded.usable, "number")
                for name, head in self.heads.items()
            }
        )

    @property
    def classes_(self) -> Any:
        """Classes in the order of the probabilities; a dict where the model has several targets."""
        return _only({name: getattr(head, "classes_", None) for name, head in self.heads.items()})

    def embed(
        self,
        X: SampleSet | EmbeddingStore | Sequence[Any] | str | Path,
        *,
        on_bad_input: str = "fail",
        **options: Any,
    ) -> Embedded:
        """Give the matrix that the heads take; parameters as for `predict`."""
        if isinstance(X, EmbeddingStore):
            return self._stored(X)
        samples = as_samples(X)
        embedded = embed_in_memory(
            samples, self.backbones, self._specs_here(options), list(self.layers), **options
        )
        if embedded.failed and on_bad_input == "fail":
            raise BadInputError(sorted(embedded.failed.items()))
        return embedded

    def _stored(self, store: EmbeddingStore) -> Embedded:
        differences = [
            line
            for name, spec in self.specs.items()
            for line in (
                store.specs[name].difference(spec)
                if name in store.specs
                else [f"backbone {name} is missing here"]
            )
        ]
        if differences:
            raise CacheMismatchError(str(store.path or "the store"), differences)
        X, _ = store.matrix(list(self.layers))
        digests = [bytes(row) for row in store.inputs["digest"]]
        return Embedded(X, np.ones(len(store), bool), {}, digests)

    def _specs_here(self, options: Mapping[str, Any]) -> dict[str, EmbeddingSpec]:
        """Replace a precision that this machine lacks by the nearest, and say so."""
        device = resolve_device(options.get("device", "auto"))
        specs = {}
        for name, spec in self.specs.items():
            try:
                resolve_precision(spec.precision, device)
                specs[name] = spec
            except OptionError:
                _log.warning("%s is not available on %s: float32 serves", spec.precision, device)
                specs[name] = dataclasses.replace(spec, precision="float32")
        return specs

    def save(self, path: str | Path) -> None:
        """Write the model file; one that stands there is replaced by one rename."""
        from pipeline.model.persistence import save_model

        save_model(self, Path(path))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        backbone: Backbone | Sequence[Backbone] | None = None,
        trusted: Sequence[str] = (),
    ) -> TransferModel:
        """Read a model file; nothing in it is run.

        Parameters
        ----------
        path : path
        backbone : Backbone or sequence of them, optional
            Modules of your own that the model was trained on.
        trusted : sequence of str
            Types, beside those of this program's heads, that the file may hold.

        Raises
        ------
        ModelFileError
            When the file is damaged, is none of ours, or holds types that are not trusted.
        """
        from pipeline.model.persistence import load_model

        model = load_model(Path(path), tuple(trusted))
        several = [backbone] if isinstance(backbone, Backbone) else list(backbone or ())
        model.given = {own.name: own for own in several}
        return model


def as_samples(X: SampleSet | Sequence[Any] | str | Path) -> SampleSet:
    """Take whatever can be predicted on as a sample set."""
    if isinstance(X, SampleSet):
        return X
    if isinstance(X, str | Path):
        return SampleSet.from_source(X)
    return SampleSet.from_list(X)


def spread(values: NDArray[Any], usable: NDArray[np.bool_], kind: str) -> NDArray[Any]:
    """Put the values of usable rows in their places, None (NaN for numbers) between them."""
    if usable.all():
        return values
    if kind == "number":
        full = np.full((len(usable), *values.shape[1:]), np.nan)
    else:
        full = np.full((len(usable), *values.shape[1:]), None, dtype=object)
    full[usable] = values
    return full


def _only(by_target: dict[str, Any]) -> Any:
    return next(iter(by_target.values())) if len(by_target) == 1 else by_target
