"""Network: a torch module with named taps, and how its taps become layers.

A loader (bundled, timm, torchvision, a user's module) says which modules are worth
tapping; one real forward pass then tells the shape of each tap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.backbones.layer import Axes, Layer, layers_of_tap
from pipeline.errors import BackboneError, OptionError
from pipeline.pooling import check_pooling, pool
from pipeline.spec import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["FEATURES", "Network", "axes_of", "layers_of", "tap_shapes"]

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
    """

    module: nn.Module
    taps: Mapping[str, str]
    preprocess: Preprocessing
    prefix_tokens: int = 0
    class_token: bool = False
    weights: str = "default"


def axes_of(shape: Sequence[int]) -> Axes | None:
    """Tell the axes of a tap by its shape; None when it is neither map, tokens nor vector.

    Examples
    --------
    >>> axes_of((1, 64, 7, 7)), axes_of((1, 7, 7, 64)), axes_of((1, 50, 64)), axes_of((1, 64))
    ('BCHW', 'BHWC', 'BTD', 'BD')
    """
    if len(shape) == 4:
        channels_last = shape[1] == shape[2] != shape[3]
        return "BHWC" if channels_last else "BCHW"
    return {3: "BTD", 2: "BD"}.get(len(shape))  # type: ignore[return-value]


@contextmanager
def tapped(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Collect the outputs of the named submodules while the context is open."""
    outputs: dict[str, Any] = {}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: outputs.__setitem__(name, output)

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
    with torch.inference_mode(), tapped(module, names) as outputs:
        try:
            module(picture)
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise BackboneError(
                f"the network cannot take a {image_size[0]} x {image_size[1]} picture: {reason}. "
                "Give it the image size it was made for."
            ) from error
    return {name: tuple(output.shape) for name, output in outputs.items() if _is_tensor(output)}


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def resolve_pooling(network: Network, pooling: str, axes: Mapping[str, Axes]) -> str:
    """Say what ``auto`` is for this network, and refuse what it cannot do."""
    if pooling == "auto":
        return "cls,mean" if network.class_token and "BTD" in axes.values() else "mean"
    check_pooling(pooling)
    if "cls" in pooling.split(",") and not network.class_token:
        raise OptionError(
            "pooling cls needs a class token, and this network has none. "
            "Use mean, max, mean+max, gem, grid2 or grid4."
        )
    return pooling


def layers_of(network: Network, pooling: str) -> tuple[str, dict[str, Layer]]:
    """Resolve the pooling and list the layers of a network, bottom to top.

    Raises
    ------
    BackboneError
        When a tap gives neither a map, tokens nor a vector.
    """
    shapes = tap_shapes(network.module, list(network.taps.values()), network.preprocess.image_size)
    axes: dict[str, Axes] = {}
    for tap, module in network.taps.items():
        found = axes_of(shapes[module]) if module in shapes else None
        if found is None:
            got = shapes.get(module, "no tensor")
            raise BackboneError(
                f"layer {tap!r} gives {got}, but a tap must give a map (B, C, H, W), "
                "tokens (B, T, D) or a vector (B, D). Name another module."
            )
        axes[tap] = found
    pooling = resolve_pooling(network, pooling, axes)
    layers: dict[str, Layer] = {}
    for tap, module in network.taps.items():
        shape = shapes[module]
        width = shape[1] if axes[tap] == "BCHW" else shape[-1]
        layers |= layers_of_tap(tap, module, width, axes[tap], pooling)
    return pooling, layers


def pack(layers: Sequence[Layer], outputs: Mapping[str, Tensor], prefix_tokens: int) -> Tensor:
    """Pool the taps of a batch and pack them side by side, in float32."""
    import torch

    return torch.cat(
        [
            pool(outputs[layer.module], layer.axes, layer.pooling, prefix_tokens=prefix_tokens)
            for layer in layers
        ],
        dim=1,
    )
