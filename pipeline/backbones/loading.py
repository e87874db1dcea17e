"""From a name to a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.backbones.catalog import BACKBONES, FAMILIES, adapt
from pipeline.backbones.checkpoint import fill
from pipeline.backbones.weights import DEFAULT, MODULE, RANDOM
from pipeline.errors import OptionError, UnknownNameError, nearest
from pipeline.spec import Preprocessing, Resize

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from pipeline.backbones.backbone import Backbone
    from pipeline.backbones.network import Network

__all__ = ["list_backbones", "load_backbone"]


def load_backbone(
    backbone: str | nn.Module = "efficientnet_lite0",
    *,
    weights: str | Path | Mapping[str, NDArray[Any]] | None = DEFAULT,
    pooling: str = "auto",
    image_size: int | None = None,
    resize: Resize | None = None,
    name: str | None = None,
    layers: Sequence[str] | None = None,
    preprocess: Preprocessing | None = None,
) -> Backbone:
    """Load a frozen network.

    Parameters
    ----------
    backbone : str or nn.Module
        A bundled name (`BACKBONES`), ``timm/<model>``, ``torchvision/<model>``, or a module
        of your own, which needs ``layers`` and ``preprocess`` and is put into eval mode.
    weights : str, path, mapping or None
        ``"default"``: those that the name stands for; a path: a ``.safetensors`` or ``.pt``
        file for that architecture; arrays by tensor name, as `Backbone.state` gives them;
        None (or ``"random"``): random weights, the same each time.
    pooling : str
        ``"auto"`` (maps: mean; tokens: class token and patch mean), or a key of `POOLINGS`;
        several joined by ``,`` make several layers of each tap.
    image_size : int, optional
        Pixels a side, instead of the network's own.
    resize : {"crop", "squash", "pad"}, optional
        Resize rule, instead of the network's own.
    name, layers, preprocess
        Only for a module of your own: its name in caches, the names of the submodules to
        tap, and how it wants its pictures.

    Raises
    ------
    UnknownNameError
        For a name that nobody knows, with the nearest one.
    BackboneError
        When the weights are missing or do not fit.
    OptionError
        When an option does not apply to this network.

    Examples
    --------
    >>> load_backbone("timm/test_vit", weights=None).layers["blocks.0.cls"].width
    64
    """
    from pipeline.backbones.backbone import Backbone

    if not isinstance(backbone, str):
        from pipeline.backbones.own import own_name, own_network

        if preprocess is not None:
            preprocess = adapt(preprocess, image_size, resize)
        network = own_network(backbone, layers, preprocess)
        return Backbone(own_name(backbone, name), network, pooling)
    if name or layers is not None or preprocess is not None:
        raise OptionError(
            "name, layers and preprocess describe a module of your own; "
            f"{backbone!r} brings them itself. Leave them out."
        )
    if isinstance(weights, Mapping):
        network = replace(_network(backbone, RANDOM, image_size, resize), weights=MODULE)
        fill(network.module, weights, f"the state given for {backbone}")
        return Backbone(backbone, network, pooling)
    source = RANDOM if weights is None else str(weights)
    return Backbone(backbone, _network(backbone, source, image_size, resize), pooling)


def _network(name: str, weights: str, image_size: int | None, resize: Resize | None) -> Network:
    if name in BACKBONES:
        entry = BACKBONES[name]
        if weights == DEFAULT:
            from pipeline.backbones.bundled import load_bundled

            return load_bundled(entry, adapt(entry.preprocess, image_size, resize))
        from pipeline.backbones import timm_models

        return timm_models.load(
            entry.architecture, weights=weights, image_size=image_size, resize=resize
        )
    family, _, model = name.partition("/")
    if family not in FAMILIES or not model:
        raise UnknownNameError("backbone", name, _accepted(name))
    loaded: Network = import_module(FAMILIES[family]).load(
        model, weights=weights, image_size=image_size, resize=resize
    )
    return loaded


def _accepted(name: str) -> list[str]:
    """Bundled names and families, and a family's model where its prefix was forgotten."""
    known = [*BACKBONES, *(f"{family}/<model>" for family in FAMILIES)]
    if nearest(name, BACKBONES):
        return known  # without importing timm
    return [*(found for found in list_backbones() if found.endswith(f"/{name}")), *known]


def list_backbones() -> list[str]:
    """Every name that `load_backbone` knows: bundled, then timm's, then torchvision's."""
    found = list(BACKBONES)
    for family, module in FAMILIES.items():
        found += [f"{family}/{model}" for model in import_module(module).names()]
    return found
