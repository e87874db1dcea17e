"""What a cache shall hold: which backbones, which layers, under which spec.

An existing cache answers for every option that is not given. Layers are only ever added,
and new rows get all of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
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
from pipeline.errors import CacheMismatchError, OptionError, UnknownNameError
from pipeline.inputs import available_decoder
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
        Builds the backbone, once; called only when there is something to embed.
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

    @property
    def named(self) -> bool:
        """Whether name and weights say all; what a user's own module computes, only it knows."""
        return self.weights != "module"


def wanted_backbones(
    backbones: str | Backbone | Sequence[str | Backbone] | None,
    options: EmbedOptions,
    old: EmbeddingStore | None,
) -> list[Wanted]:
    """Settle every backbone of the finished cache: those it holds, and those asked for.

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
    OptionError
        When an option does not apply to these backbones.
    """
    held = list(old.specs) if old is not None else []
    asked = _asked(backbones, held, options)
    blank = dataclasses.replace(
        options, layers=None, pooling=None, image_size=None, resize=None, precision=None,
        store_dtype=None, weights=None,
    )  # fmt: skip
    found = {
        name: _described(asked.get(name, name), options if name in asked else blank, old)
        for name in dict.fromkeys((*held, *asked))
    }
    requests = _shared_out(options.layers, {name: found[name][0].layers for name in asked})
    return [
        _settled(name, described, load, requests.get(name), old)
        for name, (described, load) in found.items()
    ]


def _asked(
    backbones: str | Backbone | Sequence[str | Backbone] | None,
    held: Sequence[str],
    options: EmbedOptions,
) -> dict[str, str | Backbone]:
    """Give what was asked for by name."""
    if backbones is None:
        backbones = held or DEFAULT_BACKBONE
    items = [backbones] if isinstance(backbones, str | Backbone) else backbones
    asked: list[str | Backbone] = []
    for item in items:
        asked += [name.strip() for name in item.split(",")] if isinstance(item, str) else [item]
    named = {item if isinstance(item, str) else item.name: item for item in asked}
    if len(named) < len(asked) or not asked:
        raise OptionError(
            f"{len(asked)} backbones with {len(named)} names were asked for. Name at least one, "
            "and each once; give a module of your own another name."
        )
    if options.weights is not None and len(named) > 1:
        raise OptionError(
            f"weights were given for {len(named)} backbones at once. Embed them one at a time."
        )
    return named


def _described(
    item: str | Backbone, options: EmbedOptions, old: EmbeddingStore | None
) -> tuple[Description, Callable[[], Backbone]]:
    """Describe a backbone under the options; the cache answers where none is given.

    What belongs to the network is answered by its own spec, what belongs to the machine and
    the file by any spec of the cache: one decoding serves all backbones.
    """
    specs = old.specs if old is not None else {}
    held = specs.get(item if isinstance(item, str) else item.name)
    any_held = held or next(iter(specs.values()), None)
    precision = options.precision or (any_held.precision if any_held else "auto")
    numbers: dict[str, Any] = {
        "store_dtype": options.store_dtype or (any_held.store_dtype if any_held else "float16"),
        "decoder": any_held.decoder if any_held else available_decoder(),
    }
    if not isinstance(item, str):
        _refuse_reshaping(item, options)
        resolved = resolve_precision(precision, resolve_device(options.device))
        spec = item.spec(precision=resolved, **numbers)
        return Description(spec, item.layers, item.network.weights), lambda: item
    shape: dict[str, Any] = {
        "pooling": options.pooling or (held.pooling if held else "auto"),
        "image_size": options.image_size or (_side(held) if held else None),
        "resize": options.resize or (held.preprocess.resize if held else None),
        "weights": _weights(item, options, old),
    }
    described = survey(
        item,
        device=options.device,
        precision=precision,
        forward_cache=not options.no_forward_cache,
        **shape,
        **numbers,
    )
    return described, functools.cache(lambda: load_backbone(item, **shape))


def _refuse_reshaping(backbone: Backbone, options: EmbedOptions) -> None:
    """Refuse options that would make another backbone of one that is loaded already."""
    preprocess, size = backbone.preprocess, options.image_size
    given = {
        "image size": (size and (size, size), preprocess.image_size),
        "resize": (options.resize, preprocess.resize),
        "pooling": (options.pooling if options.pooling != "auto" else None, backbone.pooling),
        "weights": (options.weights, None),
    }
    for what, (asked, loaded) in given.items():
        if asked is not None and asked != loaded:
            raise OptionError(
                f"{what} {asked} was asked for, but the backbone {backbone.name} is loaded "
                f"already, with {loaded}. Give it to load_backbone, or give the name alone."
            )


def _weights(name: str, options: EmbedOptions, old: EmbeddingStore | None) -> str:
    if options.weights is not None:
        return str(options.weights.resolve())
    weights = old.weights.get(name, "default") if old is not None else "default"
    if weights == "module" and old is not None:
        raise OptionError(
            f"{old.path} holds layers of {name}, a module of your own, which its name does not "
            "bring. Give the backbone itself, as load_backbone made it."
        )
    return weights


def _side(spec: EmbeddingSpec) -> int | None:
    height, width = spec.preprocess.image_size
    return height if height == width else None


def _shared_out(
    request: str | None, taps: Mapping[str, Mapping[str, Layer]]
) -> dict[str, str | list[str] | None]:
    """Give each backbone its own of the layers asked for; a bare tap goes to all that have it."""
    if request in (None, "auto", "all"):
        return dict.fromkeys(taps, request)
    shares: dict[str, list[str]] = {name: [] for name in taps}
    for layer in filter(None, (piece.strip() for piece in str(request).split(","))):
        owner, _, tap = layer.rpartition("/")
        holders = [name for name in taps if tap in taps[name] and owner in ("", name)]
        if not holders:
            full = [full_name(name, own) for name in taps for own in taps[name]]
            bare = dict.fromkeys(own for name in taps for own in taps[name])
            raise UnknownNameError("layer", layer, full if owner else list(bare))
        for name in holders:
            shares[name].append(tap)
    return dict(shares)


def _settled(
    name: str,
    described: Description,
    load: Callable[[], Backbone],
    request: str | list[str] | None,
    old: EmbeddingStore | None,
) -> Wanted:
    """Add the layers that the cache holds to those asked for, under the same spec."""
    held = old.specs.get(name) if old is not None else None
    if held is not None and old is not None and held.key() != described.spec.key():
        raise CacheMismatchError(str(old.path), held.difference(described.spec))
    layers = old.layers if old is not None else {}
    own = [layer.rpartition("/")[2] for layer in layers if layer.rpartition("/")[0] == name]
    if request == [] and not own:
        example = full_name(name, next(iter(described.layers)))
        raise OptionError(
            f"no layer of {name} was named. Name one, {example} for instance, or leave this "
            "backbone out."
        )
    chosen = {*choose_layers(described.layers, request or own or "auto", name), *own}
    return Wanted(
        spec=described.spec,
        layers={
            full_name(name, tap): layer.width
            for tap, layer in described.layers.items()
            if tap in chosen
        },
        held=frozenset(full_name(name, tap) for tap in own),
        load=load,
        weights=described.weights,
        described=described.layers,
    )
