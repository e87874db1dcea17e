"""TransferModel: backbones, layers and one head per target; what a user takes away."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.backbones import Backbone, resolve_device, resolve_precision
from pipeline.cache import EmbeddingStore
from pipeline.errors import BadInputError, CacheMismatchError, OptionError
from pipeline.inputs import available_decoder
from pipeline.model.in_memory import Embedded, embed_in_memory
from pipeline.model.networks import MODULE, checked, given_backbones, rebuilt
from pipeline.model.persistence import load_model, save_model
from pipeline.model.torch_module import folded_heads, torch_module
from pipeline.model.values import ModelValues
from pipeline.results import with_probabilities
from pipeline.samples import SampleSet
from pipeline.spec import EmbeddingSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

__all__ = ["TransferModel"]

_log = logging.getLogger(__name__)


class TransferModel(ModelValues):
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
    given : dict of str to Backbone
        Networks that are at hand, and need not be built.

    Examples
    --------
    >>> model = TransferModel.load("model.safetensors")  # doctest: +SKIP
    >>> model.predict(["new/1.jpg", "new/2.jpg"])  # doctest: +SKIP
    array(['owl', 'elk'], dtype='<U3')
    """

    @cached_property
    def backbones(self) -> dict[str, Backbone]:
        """The frozen networks by name; built when first asked for.

        Raises
        ------
        OptionError
            When a network is a module of the user's, who has not given it.
        BackboneError
            When a network here is not the one that the heads were trained on.
        """
        return {name: self._backbone(name, spec) for name, spec in self.specs.items()}

    def _backbone(self, name: str, spec: EmbeddingSpec) -> Backbone:
        if name in self.given:
            return checked(self.given[name], spec)
        source = self.weights.get(name, "default")
        return rebuilt(spec, source if source == MODULE else self.states.get(name, source))

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
            Inputs, or their embeddings from a cache of the same spec, which may hold more
            backbones and layers.
        on_bad_input : {"fail", "skip"}
            ``skip`` gives None (NaN for a number) for an input that cannot be read.
        **options
            ``device``, ``batch_size``, ``max_pixels``, ``progress``.

        Returns
        -------
        array of shape (n_samples,), or dict of them
            In the dtype of the labels, 0/1 of shape (n_samples, n_labels) for several labels
            (`classes_` names the columns); a dict by target where the model has several.
            One row for each id of a sample set: what failed before it was read has none.

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
                name: spread(
                    _answers(head.predict, embedded.X), embedded.usable, self.results[name].kind
                )
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
            Columns in the order of ``classes_``; NaN rows for skipped inputs. Of several
            targets, one that is a number has no entry.
        """
        names = with_probabilities(self.results)
        embedded = self.embed(X, on_bad_input=on_bad_input, **options)
        found = {
            name: spread(
                _answers(self.heads[name].predict_proba, embedded.X), embedded.usable, "number"
            )
            for name in names
        }
        return found if len(self.heads) > 1 else _only(found)

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
            samples,
            self.specs_here(options.get("device", "auto")),
            self.layers,
            lambda name: self.backbones[name],
            own_modules=[name for name, source in self.weights.items() if source == MODULE],
            **options,
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
        missing = [layer for layer in self.layers if layer not in store.layers]
        differences += [f"layer {layer} is missing here" for layer in missing if not differences]
        if differences:
            raise CacheMismatchError(str(store.path or "the store"), differences)
        X, _ = store.matrix(list(self.layers))
        digests = [bytes(row) for row in store.inputs["digest"]]
        return Embedded(X, np.ones(len(store), bool), {}, digests)

    def specs_here(self, device: str = "auto") -> dict[str, EmbeddingSpec]:
        """Replace a precision or decoder that this machine lacks by the nearest, and say so."""
        device, decoder = resolve_device(device), available_decoder()
        specs = {}
        for name, spec in self.specs.items():
            try:
                resolve_precision(spec.precision, device)
            except OptionError:
                _log.warning("%s is not available on %s: float32 serves", spec.precision, device)
                spec = dataclasses.replace(spec, precision="float32")
            if spec.decoder != decoder and spec.decoder != "pil":
                _log.warning("decoder %s is not available: %s serves", spec.decoder, decoder)
                spec = dataclasses.replace(spec, decoder=decoder)
            specs[name] = spec
        return specs

    def to_torch(self) -> nn.Module:
        """Make one torch module of networks and heads, from 8-bit pictures to predictions.

        It is in evaluation mode with frozen parameters, shares nothing with this model, and can
        be exported: ``torch.onnx.export(module, (pictures,), "model.onnx",
        dynamic_shapes=[{0: "batch"}])``. It computes in float32, whatever the precision of
        `predict` is, and rounds vectors as the model's cache did.

        Returns
        -------
        nn.Module
            Takes a uint8 tensor of shape (batch, height, width, 3): RGB, resized to its
            ``image_size``, not normalised. Gives the probabilities of the classes (batch,
            n_classes) or labels (batch, n_labels), or the number (batch,); where the model has
            several targets, a tuple of these in the order of its ``targets``.

        Raises
        ------
        OptionError
            When a head is not linear in the layers, or the networks look at different pictures.
        """
        maps = folded_heads(self)  # before networks are built: it may refuse
        return torch_module(self, maps, self.backbones)

    def save(self, path: str | Path) -> None:
        """Write the model file; one that stands there is replaced by one rename."""
        save_model(self, Path(path))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        backbone: Any = None,
        trusted: Sequence[str] = (),
    ) -> TransferModel:
        """Read a model file; nothing in it is run.

        Parameters
        ----------
        path : path
        backbone : Backbone, nn.Module, or sequence of them, optional
            Modules of your own that the model was trained on.
        trusted : sequence of str
            Types, beside those of this program's heads, that the file may hold.

        Raises
        ------
        ModelFileError
            When the file is damaged, is none of ours, or holds types that are not trusted.
        BackboneError
            When ``backbone`` is not the network that the model was trained on.
        """
        model = cls(**vars(load_model(Path(path), tuple(trusted))))
        if backbone is not None:
            model.given = given_backbones(backbone, model.specs, list(model.layers), model.states)
        return model


def as_samples(X: SampleSet | Sequence[Any] | str | Path) -> SampleSet:
    """Take whatever can be predicted on as a sample set."""
    if isinstance(X, SampleSet):
        return X
    if isinstance(X, str | Path):
        return SampleSet.from_source(X)
    return SampleSet.from_list(X)


def _answers(ask: Callable[[NDArray[np.float32]], Any], X: NDArray[np.float32]) -> NDArray[Any]:
    """Ask a head, which takes no empty matrix."""
    if len(X):
        return np.asarray(ask(X))
    return np.asarray(ask(np.zeros((1, X.shape[1]), np.float32)))[:0]


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
