"""A model as one torch module: from 8-bit pictures to what its heads predict.

Its heads have to be linear: each is folded into one linear layer on the vectors of the networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.backbones import choose_layers, full_name
from pipeline.errors import OptionError
from pipeline.heads import Folded, folded

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from pipeline.backbones import Backbone
    from pipeline.model.values import ModelValues
    from pipeline.spec import Preprocessing

__all__ = ["folded_heads", "torch_module"]


def folded_heads(model: ModelValues) -> dict[str, Folded]:
    """Fold the head of every target into one affine map of the layers.

    Raises
    ------
    OptionError
        For a head that is not linear, naming its target.
    """
    n_features = sum(model.layers.values())
    return {
        name: folded(
            head,
            model.results[name].kind,
            n_features,
            name=f"{model.results[name].head} of target {name!r}",
        )
        for name, head in model.heads.items()
    }


def torch_module(
    model: ModelValues, maps: Mapping[str, Folded], backbones: Mapping[str, Backbone]
) -> nn.Module:
    """Put networks and folded heads into one module, see `TransferModel.to_torch`.

    Parameters
    ----------
    model : ModelValues
    maps : dict of str to Folded
        By target.
    backbones : dict of str to Backbone
        By name, in the order of the model's specs.

    Raises
    ------
    OptionError
        When the networks look at different pictures.
    """
    from pipeline.backbones import EmbeddingGraph, PredictingGraph

    used = {
        name: backbone
        for name, backbone in backbones.items()
        if any(layer.rpartition("/")[0] == name for layer in model.layers)
    }
    image_size = _same_pictures({name: own.preprocess for name, own in used.items()})
    graphs, layers = [], list[str]()
    for name, backbone in used.items():
        asked = [layer for layer in model.layers if layer.rpartition("/")[0] == name]
        taps = choose_layers(backbone.layers, asked, name)
        layers += [full_name(name, tap) for tap in taps]
        graphs.append(EmbeddingGraph(backbone.network, [backbone.layers[tap] for tap in taps]))
    halved = [model.specs[name].store_dtype == "float16" for name in used]
    columns = _columns(model.layers, layers)
    heads = {target: _layer(own, columns) for target, own in maps.items()}
    return PredictingGraph(graphs, halved, heads, image_size)


def _same_pictures(preprocessing: Mapping[str, Preprocessing]) -> tuple[int, int]:
    """Give the one size of the pictures that all networks look at."""
    looks = {name: _look(own) for name, own in preprocessing.items()}
    if len(set(looks.values())) > 1:
        listed = "; ".join(f"{name}: {look}" for name, look in looks.items())
        raise OptionError(
            "a torch module takes one batch of pictures, but the networks of this model look at "
            f"different ones ({listed}). Embed for all of them with the same --image-size and "
            "--resize squash, or train on the layers of one."
        )
    return next(iter(preprocessing.values())).image_size


def _look(own: Preprocessing) -> str:
    """Say what becomes of a picture before a network's own arithmetic begins."""
    more = {"crop": f" to {own.crop_fraction:g}", "pad": f" with {own.mean}"}.get(own.resize, "")
    height, width = own.image_size
    return f"{height} x {width}, {own.resize}{more}, {own.interpolation}"


def _columns(layers: Mapping[str, int], wanted: Sequence[str]) -> NDArray[np.int64]:
    """Say where the columns of layers lie, in the order in which networks give them."""
    ends = dict(zip(layers, np.cumsum(list(layers.values())), strict=True))
    return np.concatenate([np.arange(ends[name] - layers[name], ends[name]) for name in wanted])


def _layer(own: Folded, columns: NDArray[np.int64]) -> nn.Module:
    import torch
    from torch import nn

    shape = (len(columns), len(own.intercept))
    linear = nn.Linear(*shape, device="meta").to_empty(device="cpu")  # draws no random numbers
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(own.coef[:, columns]))
        linear.bias.copy_(torch.from_numpy(own.intercept))
    links = {"class": nn.Softmax(dim=1), "multilabel": nn.Sigmoid(), "number": nn.Flatten(0)}
    return nn.Sequential(linear, links[own.kind])
