"""From a name to a backbone, and from a name to its spec without building it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.backbones.catalog import BACKBONES, FAMILIES, adapt
from pipeline.backbones.checkpoint import fill
from pipeline.backbones.device import resolve_device, resolve_precision
from pipeline.backbones.layer import Layer
from pipeline.backbones.weights import DEFAULT, MODULE, RANDOM
from pipeline.errors import OptionError, UnknownNameError, nearest
from pipeline.spec import EmbeddingSpec, Preprocessing, Resize, StoreDtype

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from pipeline.backbones.backbone import Backbone
    from pipeline.backbones.network import Network

__all__ = ["Description", "describe", "list_backbones", "load_backbone", "survey"]


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


@dataclass(frozen=True)
class Description:
    """What is known of a backbone before it runs.

    Parameters
    ----------
    spec : EmbeddingSpec
    layers : mapping of str to Layer
        Every tap, bottom to top.
    weights : str
        Where the weights come from.
    """

    spec: EmbeddingSpec
    layers: Mapping[str, Layer]
    weights: str = DEFAULT


def survey(
    name: str,
    *,
    weights: str = DEFAULT,
    pooling: str = "auto",
    image_size: int | None = None,
    resize: Resize | None = None,
    device: str = "auto",
    precision: str = "auto",
    decoder: str = "torchcodec",
    store_dtype: StoreDtype = "float16",
) -> Description:
    """Describe a backbone; a bundled one with its own weights without importing torch."""
    resolved = resolve_precision(precision, resolve_device(device))
    numbers: dict[str, Any] = {
        "precision": resolved,
        "decoder": decoder,
        "store_dtype": store_dtype,
    }
    if name not in BACKBONES or weights != DEFAULT:
        loaded = load_backbone(
            name, weights=weights, pooling=pooling, image_size=image_size, resize=resize
        )
        return Description(loaded.spec(**numbers), loaded.layers, loaded.network.weights)
    entry = BACKBONES[name]
    pooling, layers = entry.layers(pooling)
    spec = EmbeddingSpec(
        backbone=name,
        weights_digest=entry.weights_digest,
        preprocess=adapt(entry.preprocess, image_size, resize),
        pooling=pooling,
        **numbers,
    )
    return Description(spec, layers)


def describe(name: str = "efficientnet_lite0", **options: Any) -> EmbeddingSpec:
    """Give the spec of a backbone; for a bundled one without importing torch.

    Parameters
    ----------
    name : str
        As for `load_backbone`.
    **options
        ``weights``, ``pooling``, ``image_size``, ``resize``, ``device``, ``precision``,
        ``decoder``, ``store_dtype``: each as in `embed`.

    Examples
    --------
    >>> describe("efficientnet_lite0", precision="float32").preprocess.image_size
    (224, 224)
    """
    return survey(name, **options).spec
