"""Fitted steps of a head on their way into a model file and back.

Our own steps become JSON and plain tensors, readable without us; a scikit-learn step
becomes a skops file of fixed bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ModelFileError
from pipeline.heads import FORMER_STEPS, OWN_STEPS, TRUSTED
from pipeline.model.skops_bytes import dump_estimator, load_estimator

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["pack_step", "unpack_step"]

_FLOAT, _SLICE, _TUPLE, _MAP = "float", "slice", "tuple", "map"
_TENSOR, _TEXTS, _STEP = "tensor", "texts", "step"
_WIDEST = 1000


def pack_step(step: Any, prefix: str, tensors: dict[str, NDArray[Any]]) -> Any:
    """Describe a fitted step in JSON, its arrays going into ``tensors`` under ``prefix``."""
    name = type(step).__name__
    if OWN_STEPS.get(name) == type(step).__module__:
        state = {key: _pack(value, f"{prefix}/{key}", tensors) for key, value in vars(step).items()}
        return {"own": name, "state": state}
    tensors[prefix] = np.frombuffer(dump_estimator(step), np.uint8)
    return {"skops": prefix, "class": f"{type(step).__module__}.{name}"}


def unpack_step(
    entry: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], trusted: tuple[str, ...]
) -> Any:
    """Build a step from what `pack_step` wrote; no code of the file runs.

    Raises
    ------
    ModelFileError
        When the file names a class that is not ours, or a type that is not trusted.
    """
    if "skops" in entry:
        return load_estimator(tensors[entry["skops"]].tobytes(), (*TRUSTED, *trusted))
    if entry["own"] in FORMER_STEPS:
        state = {key: _unpack(value, tensors, trusted) for key, value in entry["state"].items()}
        return FORMER_STEPS[entry["own"]](state)
    module = OWN_STEPS.get(entry["own"])
    if module is None:
        raise ModelFileError(
            f"the model file holds a step {entry['own']!r}, which this version does not know. "
            "Update it: pip install --upgrade transfer-pipeline"
        )
    kind = getattr(import_module(module), entry["own"])
    step = kind.__new__(kind)
    state = {key: _unpack(value, tensors, trusted) for key, value in entry["state"].items()}
    step.__dict__.update(state)
    return step


def _pack(value: Any, prefix: str, tensors: dict[str, NDArray[Any]]) -> Any:
    """Write what JSON lacks as an object of one key; plain values stay as they are."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, slice):
        return {_SLICE: [value.start, value.stop]}
    if isinstance(value, np.ndarray) and _is_plain(value):
        return _pack_array(value, prefix, tensors)
    if isinstance(value, tuple):
        return {_TUPLE: [_pack(v, f"{prefix}/{n}", tensors) for n, v in enumerate(value)]}
    if isinstance(value, list):
        return [_pack(item, f"{prefix}/{place}", tensors) for place, item in enumerate(value)]
    if isinstance(value, Mapping):
        pairs = [
            [key, _pack(item, f"{prefix}/{place}", tensors)]
            for place, (key, item) in enumerate(value.items())
        ]
        return {_MAP: pairs}
    return {_STEP: pack_step(value, prefix, tensors)}


def _is_plain(array: NDArray[Any]) -> bool:
    """Whether an array is of numbers, or a column of texts."""
    texts = array.dtype.kind in "UO" and array.ndim == 1
    return array.dtype.kind in "biuf" or (texts and all(isinstance(v, str) for v in array))


def _pack_array(array: NDArray[Any], prefix: str, tensors: dict[str, NDArray[Any]]) -> Any:
    if array.dtype.kind in "biuf":
        tensors[prefix] = array
        return {_TENSOR: prefix}
    return {_TEXTS: [array.dtype.str, array.tolist()]}


def _text_array(dtype: str, texts: list[str]) -> NDArray[Any]:
    """Make an array of texts; one of fixed width may not be wider than a text can need."""
    width = np.dtype(dtype).itemsize // np.dtype("U1").itemsize
    if np.dtype(dtype).kind not in "UO" or width > max(_WIDEST, *map(len, texts), 0):
        raise ValueError(f"texts of the type {dtype!r}")
    return np.array(texts, dtype=dtype)


def _unpack(value: Any, tensors: Mapping[str, NDArray[Any]], trusted: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors, trusted) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == _TENSOR:
        return tensors[inner]
    if kind == _TEXTS:
        return _text_array(*inner)
    if kind == _FLOAT:
        return float(inner)
    if kind == _SLICE:
        return slice(*inner)
    if kind == _TUPLE:
        return tuple(_unpack(item, tensors, trusted) for item in inner)
    if kind == _MAP:
        return {key: _unpack(item, tensors, trusted) for key, item in inner}
    if kind == _STEP:
        return unpack_step(inner, tensors, trusted)
    raise ValueError(f"a value of the unknown kind {kind!r}")
