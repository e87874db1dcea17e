"""What a cache shall hold: which backbones, which layers, under which spec.

An existing cache answers for every option that is not given. Layers are only ever added,
and new rows get all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.backbones import (
    Backbone,
    Description,
    Layer,
    choose_layers,
    full_name,
    load_backbone,
    resolve_device,
    resolve_precision,
    survey,
)
from pipeline.errors import CacheMismatchError, OptionError
from pipeline.spec import EmbeddingSpec

if TYPE_CHECKING:
    from pipeline.cache import EmbeddingStore
    from pipeline.config import EmbedOptions

__all__ = ["Wanted", "wanted_backbones"]

DEFAULT_BACKBONE = "efficientnet_lite0"


@dataclass(frozen=True, eq=False)
class Wanted:
    """One backbone of the finished cache.

    Parameters
    ----------
    spec : EmbeddingSpec
    layers : dict of str to int
        Width of every layer that the finished cache holds, by full name, bottom to top.
    held : frozenset of str
        Those that the old cache holds already.
    load : callable
        Builds the backbone; called only when there is something to embed.
    weights : str
        Where its weights come from: ``"default"``, ``"random"``, ``"module"`` or a path.
    described : dict of str to Layer
        Every tap of the backbone, bottom to top.
    """

    spec: EmbeddingSpec
    layers: Mapping[str, int]
    held: frozenset[str]
    load: Callable[[], Backbone]
    weights: str
    described: Mapping[str, Layer]

    def taps_among(self, layers: Container[str]) -> list[str]:
        """Names within the backbone of those of its layers that stand among ``layers``."""
        return [name.rpartition("/")[2] for name in self.layers if name in layers]


def wanted_backbones(
    backbones: str | Backbone | Sequence[str | Backbone] | None,
    options: EmbedOptions,
    old: EmbeddingStore | None,
) -> list[Wanted]:
    """Settle every backbone of the finished cache: those asked for, and those it holds.

    Parameters
    ----------
    backbones : str, Backbone, sequence of them, or None
        Names may be joined by commas. None: the cache's, else the default.
    options : EmbedOptions
    old : EmbeddingStore, optional
        The cache so far.

    Raises
    ------
    CacheMismatchError
        When the cache holds a backbone under another spec than asked for.
    UnknownNameError
        For a backbone or layer that does not exist.
    """
    specs = old.specs if old is not None else {}
    asked = _asked(backbones, list(specs))
    names = [item if isinstance(item, str) else item.name for item in asked]
    if options.weights is not None and len(names) > 1:
        raise OptionError(
            f"weights were given for {len(names)} backbones at once. Embed them one at a time."
        )
    found = [_settled(item, options, old) for item in asked]
    blank = dataclasses.replace(
        options, layers=None, pooling=None, image_size=None, resize=None, precision=None,
        store_dtype=None, weights=None,
    )  # fmt: skip
    return [_settled(name, blank, old) for name in specs if name not in names] + found


def _asked(
    backbones: str | Backbone | Sequence[str | Backbone] | None, held: list[str]
) -> list[str | Backbone]:
    if backbones is None:
        return [*held] if held else [DEFAULT_BACKBONE]
    items = [backbones] if isinstance(backbones, str | Backbone) else list(backbones)
    names: list[str | Backbone] = []
    for item in items:
        names += [n.strip() for n in item.split(",")] if isinstance(item, str) else [item]
    return list(dict.fromkeys(names))


def _settled(item: str | Backbone, options: EmbedOptions, old: EmbeddingStore | None) -> Wanted:
    name = item if isinstance(item, str) else item.name
    held = old.specs.get(name) if old is not None else None
    described, load = _described(item, options, held, old)
    if held is not None and old is not None and held.key() != described.spec.key():
        raise CacheMismatchError(str(old.path), held.difference(described.spec))
    own = [
        layer.rpartition("/")[2]
        for layer in (old.layers if old is not None else {})
        if layer.rpartition("/")[0] == name
    ]
    request = options.layers if options.layers is not None else (own or "auto")
    taps = {*choose_layers(described.layers, request, name), *own}
    layers = {
        full_name(name, tap): layer.width for tap, layer in described.layers.items() if tap in taps
    }
    held_layers = frozenset(full_name(name, tap) for tap in own)
    return Wanted(described.spec, layers, held_layers, load, described.weights, described.layers)


def _described(
    item: str | Backbone,
    options: EmbedOptions,
    held: EmbeddingSpec | None,
    old: EmbeddingStore | None,
) -> tuple[Description, Callable[[], Backbone]]:
    """Describe a backbone under the options, the held spec answering where none is given."""
    precision = options.precision or (held.precision if held else "auto")
    numbers: dict[str, Any] = {
        "store_dtype": options.store_dtype or (held.store_dtype if held else "float16"),
        "decoder": held.decoder if held else _decoder(),
    }
    if not isinstance(item, str):
        resolved = resolve_precision(precision, resolve_device(options.device))
        spec = item.spec(precision=resolved, **numbers)
        return Description(spec, item.layers, item.network.weights), lambda: item
    shape: dict[str, Any] = {
        "pooling": options.pooling or (held.pooling if held else "auto"),
        "image_size": options.image_size or (_side(held) if held else None),
        "resize": options.resize or (held.preprocess.resize if held else None),
    }
    weights = _weights(item, options, old)
    described = survey(
        item, weights=weights, device=options.device, precision=precision, **shape, **numbers
    )

    def load() -> Backbone:
        return load_backbone(item, weights=weights, **shape)

    return described, load


def _weights(name: str, options: EmbedOptions, old: EmbeddingStore | None) -> str:
    if options.weights is not None:
        return str(options.weights.resolve())
    return old.weights.get(name, "default") if old is not None else "default"


def _side(spec: EmbeddingSpec) -> int | None:
    height, width = spec.preprocess.image_size
    return height if height == width else None


def _decoder() -> str:
    from pipeline.inputs import available_decoder

    return available_decoder()
