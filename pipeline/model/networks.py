"""Networks of a model: how each is built again, and which of them travel in its file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.backbones import Backbone, load_backbone
from pipeline.errors import BackboneError, OptionError, UnknownNameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.spec import EmbeddingSpec

__all__ = ["MODULE", "checked", "given_backbones", "rebuilt", "travelling_states"]

MODULE = "module"
"""Where the weights of a user's own module came from: only the user can give it again."""

_BY_NAME = ("default", "random", MODULE)
"""Weights that need not travel: a name says what they are, or the user keeps them."""


def rebuilt(spec: EmbeddingSpec, weights: Any) -> Backbone:
    """Build a backbone as a spec says.

    Parameters
    ----------
    spec : EmbeddingSpec
    weights : str, or mapping of str to ndarray
        ``"default"``, ``"random"``, a path, or the state itself.

    Raises
    ------
    OptionError
        When only the user can give the network, or there never was one.
    BackboneError
        When what comes out is another network than that of the spec.
    """
    name = spec.backbone
    if spec.modality == "vectors":
        raise OptionError(
            f"the model was trained on vectors computed elsewhere ({name!r}), so it cannot read "
            "inputs. Give it such vectors: EmbeddingStore.from_arrays(..., specs=model.specs)."
        )
    if isinstance(weights, str) and weights == MODULE:
        raise OptionError(
            f"the model was trained on a module of your own, {name!r}, which is not in its file. "
            f"Give it: TransferModel.load(path, backbone=load_backbone(module, name={name!r}, "
            "layers=..., preprocess=...))."
        )
    height, width = spec.preprocess.image_size
    return checked(
        load_backbone(
            name,
            weights=weights,
            pooling=spec.pooling,
            # Only a network of its own accord takes pictures that are not square.
            image_size=height if height == width else None,
            resize=spec.preprocess.resize,
        ),
        spec,
    )


def checked(backbone: Backbone, spec: EmbeddingSpec) -> Backbone:
    """Give a backbone back that makes the numbers of the spec.

    Raises
    ------
    BackboneError
        When it makes others, naming the fields that differ with both values.
    """
    found = dataclasses.replace(
        spec,
        weights_digest=backbone.weights_digest,
        preprocess=backbone.preprocess,
        pooling=backbone.pooling,
    )
    if found != spec:
        raise BackboneError(
            f"the backbone {backbone.name!r} is not the one that the model was trained on: "
            f"{'; '.join(found.difference(spec))}. Give that one, or train the model again."
        )
    return backbone


def given_backbones(
    given: Any,
    specs: Mapping[str, EmbeddingSpec],
    layers: Sequence[str],
    states: Mapping[str, Mapping[str, NDArray[Any]]],
) -> dict[str, Backbone]:
    """Take what a user gives to `TransferModel.load` as backbones by name.

    Parameters
    ----------
    given : Backbone, nn.Module, or sequence of them
        A bare module is taken for the only backbone of the model; its taps and its
        preprocessing stand in the model.
    specs, layers, states
        Of the model. A module whose weights stand in the model is copied and takes them.

    Raises
    ------
    UnknownNameError
        For a backbone that the model does not use.
    OptionError
        For a bare module, where the model has several backbones.
    BackboneError
        For another network than the one that the model was trained on.
    """
    found = {}
    for one in given if isinstance(given, list | tuple) else [given]:
        own = one if isinstance(one, Backbone) else _wrapped(one, specs, layers)
        if own.name not in specs:
            raise UnknownNameError("backbone", own.name, list(specs))
        if own.name in states:
            own = own.filled(states[own.name])
        found[own.name] = checked(own, specs[own.name])
    return found


def _wrapped(module: Any, specs: Mapping[str, EmbeddingSpec], layers: Sequence[str]) -> Backbone:
    if len(specs) > 1:
        raise OptionError(
            f"the model has {len(specs)} backbones ({', '.join(specs)}), and a bare module does "
            "not say which it is. Give load_backbone(module, name=..., layers=..., "
            "preprocess=...)."
        )
    ((name, spec),) = specs.items()
    known = {submodule for submodule, _ in module.named_modules()}
    taps = [layer.rpartition("/")[2] for layer in layers]
    # A tap that is pooled in several ways bears the pooling behind its name.
    names = [tap if tap in known else tap.rpartition(".")[0] for tap in taps]
    return load_backbone(
        module,
        name=name,
        layers=list(dict.fromkeys(names)),
        preprocess=spec.preprocess,
        pooling=spec.pooling,
    )


def travelling_states(
    specs: Mapping[str, EmbeddingSpec],
    weights: Mapping[str, str],
    given: Mapping[str, Backbone] | None = None,
) -> dict[str, dict[str, NDArray[Any]]]:
    """Read the weights that came from a file of the user's: they travel with the model.

    Parameters
    ----------
    specs : mapping by backbone name
    weights : mapping by backbone name
        Where the weights came from; absent where the name says it.
    given : mapping by backbone name, optional
        Backbones that are at hand already.

    Returns
    -------
    dict of str to dict of str to ndarray
        State dict, without the classifier, of each such backbone.

    Raises
    ------
    BackboneError
        When the file is gone, or holds other weights than those of the spec.
    """
    states = {}
    for name, source in weights.items():
        if name not in specs or source in _BY_NAME:
            continue
        backbone = (given or {}).get(name)
        if backbone is None and not Path(source).is_file():
            raise BackboneError(
                f"the weights of {name} came from {source}, which is gone. They travel inside the "
                "model: put the file back, or embed again with other --weights."
            )
        states[name] = (backbone or rebuilt(specs[name], source)).state()
    return states
