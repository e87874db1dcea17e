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

__all__ = ["own_network"]


def own_network(
    module: nn.Module, layers: Sequence[str] | None, preprocess: Preprocessing | None
) -> Network:
    """Wrap a module that takes normalised pictures ``(B, 3, H, W)``.

    Parameters
    ----------
    module : nn.Module
    layers : sequence of str
        Names of its submodules to tap, bottom to top, as in ``named_modules()``.
    preprocess : Preprocessing
        From picture to the input that the module was trained on.

    Raises
    ------
    OptionError
        When layers or preprocessing are missing.
    UnknownNameError
        For a layer that the module does not have.
    """
    if layers is None or preprocess is None:
        missing = "layers" if layers is None else "preprocess"
        raise OptionError(
            f"a module of your own came without {missing}. Give the names of the submodules to "
            "tap, bottom to top (layers=['conv2', 'fc1']), and how it wants its pictures "
            "(preprocess=Preprocessing(image_size=(64, 64), mean=..., std=...))."
        )
    known = [name for name, _ in module.named_modules() if name]
    for name in layers:
        if name not in known:
            raise UnknownNameError("layer", name, known)
    return Network(module, {name: name for name in layers}, preprocess, weights=MODULE)
