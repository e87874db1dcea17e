"""Network: a torch module with named taps, and how its taps become layers.

A loader (bundled, timm, torchvision, a user's module) says which modules are worth
tapping; one real forward pass then tells the shape of each tap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.backbones.layer import Axes, Layer, layers_of_tap
from pipeline.errors import BackboneError, reason_of
from pipeline.pooling import pool, resolve_pooling
from pipeline.spec import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "FEATURES",
    "OUTPUT",
    "Network",
    "axes_of",
    "cannot_take",
    "layers_of",
    "pack",
    "tap_shapes",
    "tapped",
]

FEATURES = "features"
"""Tap of the final pooled features: the output of the network without its classifier."""

OUTPUT = ""
"""Module name of the network itself."""


@dataclass(frozen=True, eq=False)
class Network:
    """A torch module and what a loader knows about it.

    Parameters
    ----------
    module : nn.Module
        Without its classifier: its output is the final features.
    taps : mapping of str to str
        Tap name to module name, bottom to top; the module name ``""`` is the output.
    preprocess : Preprocessing
        Its own preprocessing, or what the user asked for instead.
    prefix_tokens : int
        Tokens before the first patch.
    class_token : bool
        Whether the first of them is a class token.
    weights : str
        Where the weights came from: ``"default"``, ``"random"``, ``"module"`` or a path.
    own : bool
        Whether it is a module of the user's, of which weights do not tell what it computes.
    """

    module: nn.Module
    taps: Mapping[str, str]
    preprocess: Preprocessing
    prefix_tokens: int = 0
    class_token: bool = False
    weights: str = "default"
    own: bool = False


def axes_of(shape: Sequence[int], image_size: tuple[int, int]) -> Axes | None:
    """Tell the axes of a tap by its shape; None when it is neither map, tokens nor vector.

    A map is read so that its sides have the proportions of the picture.

    Examples
    --------
    >>> axes_of((1, 64, 7, 7), (224, 224)), axes_of((1, 7, 7, 64), (224, 224))
    ('BCHW', 'BHWC')
    >>> axes_of((1, 50, 64), (224, 224)), axes_of((1, 64), (224, 224))
    ('BTD', 'BD')
    """
    if len(shape) == 4:
        channels_first = _distortion(shape[2:], image_size)
        channels_last = _distortion(shape[1:3], image_size)
        return "BHWC" if channels_last < channels_first else "BCHW"
    return {3: "BTD", 2: "BD"}.get(len(shape))  # type: ignore[return-value]


def _distortion(sides: Sequence[int], image_size: tuple[int, int]) -> float:
    return abs(math.log(sides[0] * image_size[1] / (sides[1] * image_size[0])))


@contextmanager
def tapped(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Collect what the named submodules give, in order of running, while the context is open.

    Of a module that runs several times in one pass, its first output is kept.
    """
    outputs: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs.setdefault(name, output)

        return hook

    handles = [module.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def tap_shapes(
    module: nn.Module, names: Sequence[str], image_size: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that submodules give for one black picture, in order of running.

    Raises
    ------
    BackboneError
        When the network cannot take a picture of this size.
    """
    import torch

    module.eval()
    parameter = next(module.parameters(), torch.zeros(()))
    picture = parameter.new_zeros((1, 3, *image_size))
    with torch.no_grad(), tapped(module, names) as outputs:
        try:
            module(picture)
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            raise cannot_take(image_size, error) from error
    return {name: tuple(output.shape) for name, output in outputs.items() if _is_tensor(output)}


def cannot_take(image_size: tuple[int, int], error: Exception) -> BackboneError:
    """Say that a network fails on pictures of this size, and why."""
    return BackboneError(
        f"the network cannot take a {image_size[0]} x {image_size[1]} picture: "
        f"{reason_of(error)}. Give it the image size it was made for."
    )


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def layers_of(network: Network, pooling: str) -> tuple[str, dict[str, Layer]]:
    """Resolve the pooling and list the layers of a network, bottom to top.

    Raises
    ------
    BackboneError
        When a tap gives neither a map, tokens nor a vector.
    """
    taps = _bare_taps(network)
    class_token = network.class_token and any(tap.prefix_tokens for tap in taps)
    pooling = resolve_pooling(pooling, class_token=class_token)
    layers: dict[str, Layer] = {}
    for tap in taps:
        layers |= layers_of_tap(tap, pooling)
    return pooling, layers


def _bare_taps(network: Network) -> list[Layer]:
    """List the taps as they come from the network, unpooled, in order of running."""
    image_size = network.preprocess.image_size
    shapes = tap_shapes(network.module, list(network.taps.values()), image_size)
    taps = [
        _bare_tap(name, module, shapes.get(module, ()), network)
        for name, module in network.taps.items()
    ]
    running = list(shapes)
    return sorted(taps, key=lambda tap: running.index(tap.module))


def _bare_tap(name: str, module: str, shape: tuple[int, ...], network: Network) -> Layer:
    axes = axes_of(shape, network.preprocess.image_size)
    if axes is None:
        raise BackboneError(
            f"layer {name!r} gives {shape or 'no tensor'}, but a tap must give a map "
            "(B, C, H, W), tokens (B, T, D) or a vector (B, D). Name another module."
        )
    width = shape[1] if axes == "BCHW" else shape[-1]
    prefix = _prefix_tokens(shape[1], network.prefix_tokens) if axes == "BTD" else 0
    return Layer(name, width, axes, module, prefix_tokens=prefix)


def _prefix_tokens(tokens: int, prefix: int) -> int:
    """Prefix tokens of one tap: some networks add their class token only near the top."""
    return 0 if _is_square(tokens) and not _is_square(tokens - prefix) else prefix


def _is_square(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count


def pack(layers: Sequence[Layer], outputs: Mapping[str, Tensor]) -> Tensor:
    """Pool the taps of a batch and pack them side by side, in float32."""
    import torch

    pooled = [
        pool(outputs[tap.module], tap.axes, tap.pooling, prefix_tokens=tap.prefix_tokens)
        for tap in layers
    ]
    return torch.cat(pooled, dim=1)
