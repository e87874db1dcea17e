"""Datasets: what our HDF5 files are made of, room for numbers and texts."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

import h5py
import numpy as np

from pipeline.cache.seal import Extent
from pipeline.errors import CacheError

__all__ = [
    "MISREADINGS",
    "TEXT",
    "decoded",
    "encoded",
    "escaped",
    "extent_of",
    "reserve",
    "texts_of",
    "unescaped",
    "write_texts",
]

TEXT = h5py.string_dtype()
_ERRORS = "surrogateescape"
"""File names of Linux need not be UTF-8."""
MISREADINGS = (
    OSError, RuntimeError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError,
    MemoryError,
)  # fmt: skip
"""What HDF5 raises on a file that is not laid out as it should be."""


def reserve(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Extent:
    """Make a contiguous dataset whose bytes are allocated but not written."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)  # the same contents give the same bytes
    group, _, last = name.rpartition("/")
    dataset = h5py.h5d.create(
        file.require_group(group).id,
        last.encode(),
        h5py.h5t.py_create(dtype),
        h5py.h5s.create_simple(shape),
        plan,
    )
    return dataset.get_offset() or 0, int(np.prod(shape)) * dtype.itemsize


def write_texts(group: h5py.Group, name: str, texts: Any) -> h5py.Dataset:
    """Write texts, also such as are no UTF-8."""
    array = np.empty(len(texts), dtype=object)
    array[:] = [encoded(text) for text in texts]
    return group.create_dataset(name, data=array, dtype=TEXT)


def extent_of(dataset: h5py.Dataset, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Extent:
    """Say where the bytes of a dataset stand, once it is what it should be."""
    if dataset.shape != shape or dataset.dtype != dtype:
        raise CacheError(
            f"{dataset.name} is {dataset.dtype} of shape {dataset.shape}, not {dtype} of {shape}."
        )
    return dataset.id.get_offset() or 0, int(np.prod(shape)) * dtype.itemsize


def texts_of(dataset: h5py.Dataset) -> list[str]:
    """Read texts that `write_texts` wrote."""
    if h5py.check_string_dtype(dataset.dtype) is None or dataset.ndim != 1:
        raise CacheError(f"{dataset.name} is {dataset.dtype}, not text.")
    return [decoded(text) for text in dataset[()]]


def encoded(text: str) -> bytes:
    """Encode a text for HDF5."""
    if "\0" in text:
        raise CacheError(
            f"{text!r} holds a NUL character, which HDF5 cannot keep. Remove it from the table."
        )
    return text.encode(errors=_ERRORS)


def decoded(text: bytes) -> str:
    """Decode what `encoded` gave."""
    return text.decode(errors=_ERRORS)


def escaped(name: str) -> str:
    """Escape a target's name: ``/`` divides groups in HDF5, and ``.`` is the group itself."""
    quoted = quote(name, safe="", errors=_ERRORS)
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def unescaped(name: str) -> str:
    """Give the name that `escaped` escaped."""
    return unquote(name, errors=_ERRORS)
