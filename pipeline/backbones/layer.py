"""Layer: one tap of a backbone, and the choice of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.errors import OptionError, UnknownNameError
from pipeline.pooling import pooled_width

__all__ = ["Axes", "Layer", "choose_layers", "full_name", "layers_of_tap"]

Axes = Literal["BCHW", "BHWC", "BTD", "BD"]

_AUTO_WIDTH = 4096
_AUTO_TAPS = 4


@dataclass(frozen=True)
class Layer:
    """One tap of a backbone as it is cached.

    Parameters
    ----------
    name : str
        Name within the backbone, without ``/`` and ``,``: ``"blocks.3"``, ``"blocks.3.cls"``.
    width : int
        Values an input, pooled (of a bare tap, which is yet to be pooled: its channels).
    axes : {"BCHW", "BHWC", "BTD", "BD"}
        What the dimensions are before pooling.
    module : str
        The module whose output is tapped; layers of one module stand together.
    pooling : str
        How the tap becomes a vector; empty keeps every value in its order, as for ``BD``.
    prefix_tokens : int
        Tokens of ``BTD`` before the first patch (class token, registers).
    """

    name: str
    width: int
    axes: Axes
    module: str
    pooling: str = ""
    prefix_tokens: int = 0


def full_name(backbone: str, tap: str) -> str:
    """Name of a layer in a cache: the last ``/`` divides backbone and tap."""
    return f"{backbone}/{tap}"


def layers_of_tap(tap: Layer, pooling: str) -> dict[str, Layer]:
    """Give the layers of one bare tap: one for each pooling, or the vector as it is.

    Tokens name their layers ``TAP.POOLING``; a map does so only where it is pooled in
    several ways. A class token is taken only where there is one.

    Examples
    --------
    >>> tap = Layer("blocks.0", 384, "BTD", "blocks.0", prefix_tokens=1)
    >>> list(layers_of_tap(tap, "cls,mean"))
    ['blocks.0.cls', 'blocks.0.mean']
    """
    if tap.axes == "BD":
        return {tap.name: tap}
    poolings = [name for name in pooling.split(",") if name != "cls" or tap.prefix_tokens]
    named = tap.axes == "BTD" or len(poolings) > 1
    layers = [
        replace(
            tap,
            name=f"{tap.name}.{pooling}" if named else tap.name,
            width=pooled_width(tap.width, pooling),
            pooling=pooling,
        )
        for pooling in poolings
    ]
    return {layer.name: layer for layer in layers}


def choose_layers(
    layers: Mapping[str, Layer], request: str | Sequence[str], backbone: str = ""
) -> tuple[str, ...]:
    """Resolve ``"auto"``, ``"all"`` or names into taps, bottom to top.

    ``auto`` takes every tap while their widths add up to at most 4,096; else the taps of
    four evenly spaced modules and of the last.

    Parameters
    ----------
    layers : mapping of str to Layer
        All taps of a backbone, bottom to top.
    request : str or sequence of str
        ``"auto"``, ``"all"``, names joined by ``,`` or a sequence of names; a name may
        be written with its backbone (``efficientnet_lite0/blocks.3``).
    backbone : str
        Name of the backbone, taken off the requested names.

    Raises
    ------
    UnknownNameError
        For a name that is no tap.
    OptionError
        When no layer is named.

    Examples
    --------
    >>> taps = {n: Layer(n, 1500, "BCHW", n, "mean") for n in ("s1", "s2", "s3", "s4", "s5", "s6")}
    >>> choose_layers(taps, "auto")
    ('s1', 's2', 's4', 's5', 's6')
    >>> choose_layers(taps, "s3,s1")
    ('s1', 's3')
    """
    if request == "all":
        return tuple(layers)
    if request == "auto":
        return _auto(layers)
    names = request.split(",") if isinstance(request, str) else list(request)
    if not any(names):
        raise OptionError("no layer was named. Use auto, all, or names joined by a comma.")
    wanted = {name.strip().removeprefix(f"{backbone}/") for name in names}
    for name in sorted(wanted - set(layers)):
        raise UnknownNameError("layer", name, list(layers))
    return tuple(name for name in layers if name in wanted)


def _auto(layers: Mapping[str, Layer]) -> tuple[str, ...]:
    if sum(layer.width for layer in layers.values()) <= _AUTO_WIDTH:
        return tuple(layers)
    modules = list(dict.fromkeys(layer.module for layer in layers.values()))
    below = len(modules) - 1
    spaced = {
        modules[max(round((step + 1) * below / _AUTO_TAPS) - 1, 0)] for step in range(_AUTO_TAPS)
    }
    kept = spaced | {modules[-1]}
    return tuple(name for name, layer in layers.items() if layer.module in kept)
