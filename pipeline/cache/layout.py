"""Layout: where everything stands in the HDF5 file of a cache.

HDF5 is asked for the structure and the small datasets. The layers and their checksums are
contiguous and unfiltered, so they are written and read as plain bytes at their offsets.

A file may come from a stranger, so before a dataset is touched every link on the way must
be a hard link, and the dataset must be of a known place and type, without external
storage, virtual parts or filters, and no larger than the file.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.cache.blocks import n_blocks
from pipeline.cache.contents import (
    FORMAT_VERSION,
    INPUT,
    Column,
    Contents,
    Failure,
    dtype_of,
)
from pipeline.cache.datasets import (
    MISREADINGS,
    TEXT,
    decoded,
    encoded,
    escaped,
    extent_of,
    reserve,
    texts_of,
    unescaped,
    write_texts,
)
from pipeline.cache.seal import Extent, user_block_size
from pipeline.cache.sheet import Sheet
from pipeline.errors import CacheDamagedError, CacheError
from pipeline.spec import EmbeddingSpec

__all__ = ["Layout", "create_layout", "read_layout"]

_FAILURE = np.dtype([("id", TEXT), ("reason", TEXT), *((n, INPUT[n]) for n in INPUT.names or ())])
_DEEPEST, _MOST = 16, 10_000
_STEERED = ("layers", "checksums", "targets")
_SINGLE = ("ids", "inputs", "failed")


@dataclass(frozen=True, eq=False)
class Layout:
    """A file's structure.

    Parameters
    ----------
    contents : Contents
        Everything but the vectors.
    extents : dict of str to (int, int)
        Offset and size in bytes of every layer.
    checksum_extents : dict of str to (int, int)
        The same of every layer's checksums.
    """

    contents: Contents
    extents: dict[str, Extent]
    checksum_extents: dict[str, Extent]


def create_layout(file: BinaryIO, contents: Contents) -> Layout:
    """Write a file with room for the vectors and their checksums, and say where it is."""
    sheet = Sheet()
    layout = _create(sheet, contents)
    sheet.copy_to(file)
    return layout


def _create(sheet: Sheet, contents: Contents) -> Layout:
    n_rows = len(contents.ids)
    with h5py.File(
        sheet,
        "w",
        libver=("v108", "v110"),
        userblock_size=user_block_size(len(contents.layers)),
        alignment_threshold=4096,
        alignment_interval=64,
    ) as file:
        _write_attributes(file, contents)
        extents, checksums = {}, {}
        for layer, width in contents.layers.items():
            dtype = dtype_of(layer, contents.specs)
            extents[layer] = reserve(file, f"layers/{layer}", (n_rows, width), dtype)
            blocks = (n_blocks(n_rows),)
            checksums[layer] = reserve(file, f"checksums/{layer}", blocks, np.dtype("<u8"))
        write_texts(file, "ids", contents.ids)
        file.create_dataset("inputs", data=contents.inputs, dtype=INPUT)
        file.create_dataset("failed", data=_packed(contents.failed), dtype=_FAILURE)
        file.create_group("targets", track_order=True)  # the order of the table
        for name, column in contents.targets.items():
            _write_column(file, name, column)
    return Layout(contents, extents, checksums)


def read_layout(file: BinaryIO, content: mmap.mmap) -> Layout:
    """Read the structure of a file whose seal has been checked.

    Parameters
    ----------
    file : binary file
    content : mmap
        Its bytes, as they lie on the disk.

    Raises
    ------
    CacheDamagedError
        When the structure is not one that we write.
    """
    try:
        with h5py.File(file, "r") as root:
            return _read(root, memoryview(content))
    except CacheError as error:
        raise CacheDamagedError(f"{file.name} is not to be trusted: {error}") from None
    except MISREADINGS as error:
        raise CacheDamagedError(
            f"{file.name} is not laid out as a cache of ours ({error}). Embed into another file."
        ) from None


def _write_attributes(file: h5py.File, contents: Contents) -> None:
    specs = {name: spec.to_json() for name, spec in contents.specs.items()}
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["layers"] = json.dumps(list(contents.layers))
    file.attrs["specs"] = json.dumps(specs)
    file.attrs["weights"] = json.dumps(contents.weights)
    file.attrs["created"] = contents.created
    file.attrs["library_versions"] = json.dumps(contents.library_versions)


def _write_column(file: h5py.File, name: str, column: Column) -> None:
    group, key = file["targets"], escaped(name)
    if column.values.dtype == np.float64:
        dataset = group.create_dataset(key, data=column.values, dtype="<f8")
    else:
        dataset = write_texts(group, key, column.values)
    dataset.attrs["kind"] = column.kind


def _packed(failed: tuple[Failure, ...]) -> NDArray[np.void]:
    records = np.zeros(len(failed), dtype=_FAILURE)
    for record, failure in zip(records, failed, strict=True):
        record["id"], record["reason"] = encoded(failure.id), encoded(failure.reason)
        record["digest"] = np.frombuffer(failure.digest, np.uint8)
        record["size"], record["mtime_ns"] = failure.size, failure.mtime_ns
    return records


def _read(root: h5py.File, content: memoryview) -> Layout:
    datasets = dict(_datasets(root, content))
    specs = {
        name: EmbeddingSpec.from_json(value)
        for name, value in json.loads(root.attrs["specs"]).items()
    }
    layers, extents, checksums = {}, {}, {}
    ids = tuple(texts_of(datasets.pop("ids")))
    for layer in json.loads(root.attrs["layers"]):
        values, sums = datasets.pop(f"layers/{layer}"), datasets.pop(f"checksums/{layer}")
        layers[layer] = int(values.shape[1])
        extents[layer] = extent_of(values, (len(ids), layers[layer]), dtype_of(layer, specs))
        checksums[layer] = extent_of(sums, (n_blocks(len(ids)),), np.dtype("<u8"))
    contents = Contents(
        ids=ids,
        layers=layers,
        specs=specs,
        inputs=_records(datasets.pop("inputs"), INPUT),
        failed=tuple(map(_failure, _records(datasets.pop("failed"), _FAILURE))),
        targets=dict(_columns(root, datasets)),
        weights=dict(json.loads(root.attrs.get("weights", "{}"))),
        created=str(root.attrs["created"]),
        library_versions=dict(json.loads(root.attrs["library_versions"])),
    )
    if datasets:
        raise CacheError(f"it holds things that we do not write: {', '.join(sorted(datasets))}.")
    return Layout(contents, extents, checksums)


def _datasets(root: h5py.File, content: memoryview) -> Iterator[tuple[str, h5py.Dataset]]:
    """Walk over hard links only, and give every dataset that is safe to touch."""
    pending, count = [("", root)], 0
    while pending:
        path, group = pending.pop()
        for name in group:
            count += 1
            inner = f"{path}/{name}" if path else name
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise CacheError(f"{inner} is a link to elsewhere, which we never write.")
            if count > _MOST or inner.count("/") > _DEEPEST:
                raise CacheError("it holds more groups or deeper ones than a cache has.")
            found = group[name]
            if isinstance(found, h5py.Dataset):
                _check_storage(inner, found, len(content))
                _check_texts(inner, found, content)
                yield inner, found
            elif isinstance(found, h5py.Group) and inner.split("/")[0] in _STEERED:
                pending.append((inner, found))
            else:
                raise CacheError(f"{inner} is nothing that we write.")


def _check_storage(name: str, dataset: h5py.Dataset, file_size: int) -> None:
    if name.split("/")[0] not in (*_STEERED, *_SINGLE):
        raise CacheError(f"{name} is nothing that we write.")
    plan = dataset.id.get_create_plist()
    if dataset.is_virtual or dataset.external or plan.get_nfilters():
        raise CacheError(f"{name} is stored outside the file, virtually or through a filter.")
    if plan.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT):
        raise CacheError(f"{name} is stored in chunks, not contiguous.")
    if dataset.size is None or dataset.size * dataset.id.get_type().get_size() > file_size:
        raise CacheError(f"{name} claims to be larger than the file.")


def _check_texts(name: str, dataset: h5py.Dataset, content: memoryview) -> None:
    """Add up what the texts claim: all may point to one, and ask for any amount of memory.

    On the disk a text is 16 bytes, the first four of which say how long it is; a failure
    begins with two texts.
    """
    if not dataset.dtype.hasobject or not dataset.size:
        return
    width, texts = (64, [0, 4]) if dataset.dtype.names else (16, [0])
    numbers = np.frombuffer(content, "<u4", dataset.size * width // 4, dataset.id.get_offset())
    claimed = numbers.reshape(dataset.size, -1)[:, texts].sum(dtype=np.uint64)
    if claimed > len(content):
        raise CacheError(f"{name} claims to hold more text than the file.")


def _records(dataset: h5py.Dataset, dtype: np.dtype[Any]) -> NDArray[np.void]:
    if dataset.dtype != dtype or dataset.ndim != 1:
        raise CacheError(f"{dataset.name} is {dataset.dtype}, not {dtype}.")
    records: NDArray[np.void] = dataset[()]
    return records


def _text_array(dataset: h5py.Dataset) -> NDArray[np.object_]:
    texts = texts_of(dataset)
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array


def _columns(root: h5py.File, datasets: dict[str, h5py.Dataset]) -> Iterator[tuple[str, Column]]:
    for name in [name for name in datasets if name.startswith("targets/")]:
        dataset = datasets.pop(name)
        kind = str(dataset.attrs["kind"])
        is_number = dataset.dtype == np.dtype("<f8")
        values = _records(dataset, dataset.dtype) if is_number else _text_array(dataset)
        yield unescaped(name.removeprefix("targets/")), Column(kind, values)


def _failure(record: Any) -> Failure:
    return Failure(
        id=decoded(record["id"]),
        reason=decoded(record["reason"]),
        digest=record["digest"].tobytes(),
        size=int(record["size"]),
        mtime_ns=int(record["mtime_ns"]),
    )
