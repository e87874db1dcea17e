"""A user's own module as a backbone: layer names and a preprocessing are all it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.backbones.network import Network
from pipeline.backbones.weights import MODULE
from pipeline.errors import OptionError, UnknownNameError
from pipeline.spec import Preprocessing

if TYPE_CHECKING:
    from torch import nn

__all__ = ["own_name", "own_network"]


def own_name(module: nn.Module, name: str | None) -> str:
    """Name a module as the user does, else like its class.

    Raises
    ------
    OptionError
        For a name with a comma.
    """
    name = name or type(module).__name__.lower()
    if "," in name:
        raise OptionError(
            f"a backbone cannot be called {name!r}: a comma divides the names of several. "
            "Give another name."
        )
    return name


def own_network(
    module: nn.Module, layers: Sequence[str] | None, preprocess: Preprocessing | None
) -> Network:
    """Wrap a module that takes normalised pictures ``(B, 3, H, W)``.

    Parameters
    ----------
    module : nn.Module
        It is put into eval mode. Its tokens, if it has any, are all taken as patches.
    layers : sequence of str
        Names of its submodules to tap, as in ``named_modules()``.
    preprocess : Preprocessing
        From picture to the input that the module was trained on.

    Raises
    ------
    OptionError
        When layers or preprocessing are missing, or a name cannot be one of a cache's.
    UnknownNameError
        For a layer that the module does not have.
    """
    if not layers or preprocess is None:
        missing = "preprocess" if layers else "layers"
        raise OptionError(
            f"a module of your own came without {missing}. Give the names of the submodules to "
            "tap (layers=['conv2', 'fc1']), and how it wants its pictures "
            "(preprocess=Preprocessing(image_size=(64, 64), mean=..., std=...))."
        )
    known = [name for name, _ in module.named_modules() if name]
    for name in layers:
        if name not in known:
            raise UnknownNameError("layer", name, known)
        if "/" in name or "," in name:
            raise OptionError(
                f"the submodule {name!r} cannot be a layer, whose name holds no '/' and no ','. "
                "Rename it in the module, or tap another."
            )
    taps = {name: name for name in layers}
    return Network(module, taps, preprocess, weights=MODULE, own=True)
