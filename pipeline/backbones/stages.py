"""Which modules of a network are worth tapping, for families that do not say.

A stage is a run of modules that give maps of one size; its last container is the tap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.backbones.network import axes_of, tap_shapes

if TYPE_CHECKING:
    from torch import nn

__all__ = ["find_stages", "worth_tapping"]

_TRUNKS = ("encoder.layers", "features", "trunk_output", "blocks", "layers", "stages")


def worth_tapping(
    module: nn.Module, names: Sequence[str], image_size: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    """Keep the submodules that give a map or tokens, with their shapes, in order of running."""
    shapes = tap_shapes(module, names, image_size)
    return {name: shape for name, shape in shapes.items() if len(shape) in (3, 4)}


def find_stages(module: nn.Module, image_size: tuple[int, int]) -> list[str]:
    """Name the modules at the end of each stage, bottom to top; none where none is seen.

    Parameters
    ----------
    module : nn.Module
        The network; its trunk is the first of the usual containers, else its children.
    image_size : (int, int)
        Height and width of a picture, in pixels.
    """
    trunk = next((name for name in _TRUNKS if _has_children(module, name)), "")
    children = [
        f"{trunk}.{name}" if trunk else name
        for name, _ in module.get_submodule(trunk).named_children()
    ]
    shapes = worth_tapping(module, children, image_size)
    axes = {name: axes_of(shape, image_size) for name, shape in shapes.items()}
    sides = {name: shapes[name][2 if axes[name] == "BCHW" else 1] for name in shapes}
    last_of_size: dict[object, str] = {}
    for name, side in sides.items():
        if side > 1 and _has_children(module, name):
            last_of_size[name if axes[name] == "BTD" else side] = name
    return list((last_of_size or {side: name for name, side in sides.items()}).values())


def _has_children(module: nn.Module, name: str) -> bool:
    try:
        return any(True for _ in module.get_submodule(name).children())
    except AttributeError:
        return False
