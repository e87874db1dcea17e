"""Pooling: a tap of a network becomes one vector an input, in float32.

Maps come as ``BCHW`` (batch, channel, height, width), tokens as ``BTD`` (batch, token,
width), vectors as ``BD``. Tokens are folded back into their square map first, so that
every pooling is written once. Without pooling every value of a tap is kept, in its order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.errors import OptionError, UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["POOLINGS", "pool", "pooled_width", "resolve_pooling"]

_GEM_POWER = 3.0
_GEM_FLOOR = 1e-6


def _mean(maps: Tensor) -> Tensor:
    return maps.mean(dim=(2, 3))


def _max(maps: Tensor) -> Tensor:
    return maps.amax(dim=(2, 3))


def _mean_max(maps: Tensor) -> Tensor:
    from torch import cat

    return cat([_mean(maps), _max(maps)], dim=1)


def _gem(maps: Tensor) -> Tensor:
    """Generalised mean with power 3 (Radenovic et al., 2018, arXiv 1711.02512)."""
    powered = maps.clamp(min=_GEM_FLOOR).pow(_GEM_POWER)
    return powered.mean(dim=(2, 3)).pow(1.0 / _GEM_POWER)


def _grid(side: int) -> Callable[[Tensor], Tensor]:
    def pool_grid(maps: Tensor) -> Tensor:
        from torch.nn.functional import adaptive_avg_pool2d

        return adaptive_avg_pool2d(maps, side).flatten(1)

    return pool_grid


def _cls(tokens: Tensor) -> Tensor:
    return tokens[:, 0]


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": _mean,
    "max": _max,
    "mean+max": _mean_max,
    "cls": _cls,
    "gem": _gem,
    "grid2": _grid(2),
    "grid4": _grid(4),
}
"""Pooling by name. ``cls`` takes tokens, all others take maps."""

_WIDTH_FACTORS = {"mean+max": 2, "grid2": 4, "grid4": 16}


def resolve_pooling(pooling: str, *, class_token: bool) -> str:
    """Say what ``auto`` is for a network, and refuse what it cannot do.

    Parameters
    ----------
    pooling : str
        ``"auto"`` (class token and patch mean as two layers, else the mean), a key of
        `POOLINGS`, or several joined by ``,``.
    class_token : bool
        Whether the network's tokens start with a class token.

    Raises
    ------
    UnknownNameError
        For a name that is not in `POOLINGS`.
    OptionError
        When ``cls`` is asked of a network without a class token.

    Examples
    --------
    >>> resolve_pooling("auto", class_token=True)
    'cls,mean'
    """
    if pooling == "auto":
        return "cls,mean" if class_token else "mean"
    names = [name.strip() for name in pooling.split(",")]
    for name in names:
        if name not in POOLINGS:
            raise UnknownNameError("pooling", name, ["auto", *POOLINGS])
    if "cls" in names and not class_token:
        raise OptionError(
            "pooling cls needs a class token, and this network has none. "
            "Use mean, max, mean+max, gem, grid2 or grid4."
        )
    return ",".join(names)


def pooled_width(width: int, pooling: str) -> int:
    """Values an input, after pooling a tap of ``width`` channels.

    Examples
    --------
    >>> pooled_width(320, "grid2")
    1280
    """
    return width * _WIDTH_FACTORS.get(pooling, 1)


def pool(tap: Tensor, axes: str, pooling: str, *, prefix_tokens: int = 0) -> Tensor:
    """Pool one tap to a vector an input.

    Parameters
    ----------
    tap : Tensor
        Output of a module of the network.
    axes : {"BCHW", "BHWC", "BTD", "BD"}
        What the dimensions of ``tap`` are. ``BD`` is a vector already.
    pooling : str
        A key of `POOLINGS`; empty leaves the values as they are, and flattens them.
    prefix_tokens : int
        Tokens of ``BTD`` before the first patch (class token, registers).

    Returns
    -------
    Tensor of shape (batch, pooled width), float32

    Examples
    --------
    >>> import torch
    >>> pool(torch.ones(2, 5, 3, 3), "BCHW", "grid2").shape
    torch.Size([2, 20])
    >>> pool(torch.ones(2, 5, 3, 3), "BCHW", "").shape
    torch.Size([2, 45])
    """
    values = tap.float()
    if axes == "BD" or not pooling:
        return values.flatten(1)
    if pooling == "cls":
        return _cls(values)
    return POOLINGS[pooling](_as_maps(values, axes, pooling, prefix_tokens))


def _as_maps(values: Tensor, axes: str, pooling: str, prefix_tokens: int) -> Tensor:
    if axes == "BCHW":
        return values
    if axes == "BHWC":
        return values.permute(0, 3, 1, 2)
    patches = values[:, prefix_tokens:].transpose(1, 2)
    side = math.isqrt(patches.shape[2])
    if side * side == patches.shape[2]:
        return patches.reshape(*patches.shape[:2], side, side)
    if pooling.startswith("grid"):
        raise OptionError(
            f"pooling {pooling} needs a square map, but this network gives "
            f"{patches.shape[2]} patches. Use mean, max, mean+max or gem."
        )
    return patches.unsqueeze(3)
