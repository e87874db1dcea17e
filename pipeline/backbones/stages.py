"""Which modules of a convolutional network are worth tapping, for families that do not say.

A stage is a run of modules that give maps of one size; its last container is the tap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.backbones.network import axes_of, tap_shapes
from pipeline.errors import BackboneError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["find_stages"]

_TRUNKS = ("encoder.layers", "features", "trunk_output", "blocks", "layers", "stages")


def find_stages(module: nn.Module, image_size: tuple[int, int]) -> list[str]:
    """Name the modules at the end of each stage, bottom to top.

    Parameters
    ----------
    module : nn.Module
        The network; its trunk is the first of the usual containers, else its children.
    image_size : (int, int)
        Height and width of a picture, in pixels.

    Raises
    ------
    BackboneError
        When no child gives a map or tokens.
    """
    trunk = next((name for name in _TRUNKS if _has(module, name)), "")
    children = [
        f"{trunk}.{name}" if trunk else name
        for name, _ in module.get_submodule(trunk).named_children()
    ]
    shapes = tap_shapes(module, children, image_size)
    maps = {name: shape for name, shape in shapes.items() if len(shape) in (3, 4)}
    last_of_size: dict[object, str] = {}
    for name, shape in maps.items():
        if axes_of(shape) == "BTD":
            last_of_size[name] = name
        elif _side(shape) > 1 and _is_container(module.get_submodule(name)):
            last_of_size[_side(shape)] = name
    stages = list(last_of_size.values()) or list({_side(s): n for n, s in maps.items()}.values())
    if not stages:
        raise BackboneError(
            "no stages found: none of the network's children gives a map or tokens. "
            "Pass the module itself to load_backbone with the names of the layers to tap."
        )
    return stages


def _has(module: nn.Module, name: str) -> bool:
    try:
        return any(True for _ in module.get_submodule(name).children())
    except AttributeError:
        return False


def _side(shape: tuple[int, ...]) -> int:
    return shape[2] if axes_of(shape) == "BCHW" else shape[1]


def _is_container(module: nn.Module) -> bool:
    return any(True for _ in module.children())
