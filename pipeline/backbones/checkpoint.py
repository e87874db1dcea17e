"""Weights from a local file: safetensors, or torch's own format read without running code."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.digest import digest_arrays
from pipeline.errors import BackboneError, reason_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

__all__ = ["fill", "load_weights", "read_state", "state_of", "weights_digest"]

_SHOWN = 3
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")
_COUNTER = "num_batches_tracked"
"""Only training reads it, and files of old versions of torch lack it."""


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict.

    Parameters
    ----------
    path : path
        A safetensors file, or one written by ``torch.save`` that holds tensors only; the
        content says which, whatever the suffix.

    Raises
    ------
    BackboneError
        When the file is missing, is neither, or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise BackboneError(f"no weights file at {path}. Give a .safetensors or .pt file.")
    try:
        state = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    except Exception as error:  # the readers raise whatever their parsers raise
        raise BackboneError(
            f"{path} cannot be read as weights: {_reason(error)}. Accepted: a .safetensors file, "
            "or a .pt file that holds a dict of tensors and nothing else, as "
            "torch.save(module.state_dict(), file) writes it."
        ) from error
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than tensors, or is damaged, and nothing in it is ever run"
    return reason_of(error)


def _is_safetensors(path: Path) -> bool:
    """Whether a JSON header follows the eight bytes of its length."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _read_torch(path: Path) -> dict[str, Tensor]:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickles by others, which are then refused
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise TypeError("it holds no dict of tensors")
    return dict(state)


def load_weights(module: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Fill a headless network by name; a classifier in the file is left out.

    Raises
    ------
    BackboneError
        When tensors are missing or have another shape.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state and not name.endswith(_COUNTER)]
    if missing:
        more = ", ..." if len(missing) > _SHOWN else ""
        raise BackboneError(
            f"{origin} lacks {len(missing)} of the {len(own)} tensors of this architecture "
            f"({', '.join(missing[:_SHOWN])}{more}). "
            "Name the architecture the file was made for."
        )
    odd = [name for name in own if name in state and own[name].shape != state[name].shape]
    if odd:
        raise BackboneError(
            f"{origin} has another shape for {len(odd)} tensors: {odd[0]} is "
            f"{tuple(state[odd[0]].shape)} there and {tuple(own[odd[0]].shape)} here. "
            "Name the architecture the file was made for."
        )
    module.load_state_dict({name: state.get(name, own[name]) for name in own})


def fill(module: nn.Module, state: Mapping[str, NDArray[Any]], origin: str) -> None:
    """Fill a headless network with what `state_of` gave.

    Raises
    ------
    BackboneError
        When tensors are missing or have another shape.
    """
    import torch

    tensors = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
    load_weights(module, tensors, origin)


def state_of(module: nn.Module) -> dict[str, NDArray[Any]]:
    """State dict of a network as arrays."""
    import torch

    arrays = {}
    for name, tensor in module.state_dict().items():
        plain = tensor.detach().cpu()
        if plain.dtype is torch.bfloat16:  # numpy has no bfloat16: the bits say the same
            plain = plain.view(torch.uint16)
        arrays[name] = plain.numpy()
    return arrays


def weights_digest(module: nn.Module) -> str:
    """Hex digest of a network's state dict: names, dtypes, shapes and values."""
    return digest_arrays(state_of(module)).hex()
