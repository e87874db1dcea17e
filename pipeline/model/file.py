"""The container of a model file: one safetensors file that checks itself.

Its only metadata key, ``pipeline``, is JSON; a uint8 tensor ``digest`` is blake2b-128 of
the whole file with these 16 bytes zero. Nothing is built before the digest fits, and the
bytes depend on nothing but the content: no clock, no machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from pipeline.digest import DIGEST_SIZE
from pipeline.durable import write_durably
from pipeline.errors import ModelFileError, reason_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FORMAT_VERSION", "read_model_file", "write_model_file"]

FORMAT_VERSION = 1
_KEY = "pipeline"
_DIGEST = "digest"
_LENGTH = 8
"""Bytes before the header that say how long it is, little endian."""
_MAX_HEADER = 100_000_000


def write_model_file(
    path: Path, description: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> None:
    """Write a model file, whole or not at all.

    Parameters
    ----------
    path : Path
    description : mapping
        JSON values: what is in the file.
    tensors : mapping of str to ndarray

    Raises
    ------
    ModelFileError
        When the place cannot be written.
    """
    from safetensors.numpy import save

    text = json.dumps(
        {"format_version": FORMAT_VERSION, **description}, sort_keys=True, allow_nan=False
    )
    filled = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    filled[_DIGEST] = np.zeros(DIGEST_SIZE, np.uint8)
    content = bytearray(save(filled, metadata={_KEY: text}))
    start = _digest_offset(content)
    content[start : start + DIGEST_SIZE] = _digest(content, start)
    try:
        with write_durably(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise ModelFileError(
            f"cannot write {path}: {error.strerror}. Give a path in a folder that exists and "
            "can be written, on a disk with room."
        ) from error


def read_model_file(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a model file after checking that it is whole.

    Returns
    -------
    (dict, dict of str to ndarray)
        What `write_model_file` was given.

    Raises
    ------
    ModelFileError
        When there is no such file, it is none of ours, it was made by a newer version, or
        its bytes are not those that were written.
    """
    content = _content(path)
    text = _header(content).get("__metadata__", {}).get(_KEY)
    if not isinstance(text, str):
        raise ModelFileError(
            f"{path} is a safetensors file, but no model of this program. Give the file that "
            "`pipeline train` or `run` wrote."
        )
    start = _digest_offset(content)
    if start < 0 or content[start : start + DIGEST_SIZE] != _digest(content, start):
        raise ModelFileError(
            f"{path} is damaged: its bytes are not those that were written. "
            "Copy it again, or train it again from its cache."
        )
    description = _description(text, path)
    from safetensors.numpy import load

    try:
        tensors = load(content)
    except Exception as error:  # a digest can be forged: whatever the parser raises
        raise ModelFileError(
            f"{path} is not laid out as a model of ours ({reason_of(error)}). Train it again."
        ) from error
    return description, {name: tensors[name] for name in tensors if name != _DIGEST}


def _content(path: Path) -> bytes:
    """Read a file whose first bytes are those of a safetensors file, and no other."""
    if not path.is_file():
        raise ModelFileError(f"no model file at {path}. `pipeline train` or `run` writes one.")
    try:
        with path.open("rb") as file:
            if _begins_well(file, path.stat().st_size):
                file.seek(0)
                content = file.read()
                if _header(content):
                    return content
    except OSError as error:
        raise ModelFileError(
            f"cannot read {path}: {error.strerror}. Give a file that can be read."
        ) from error
    raise ModelFileError(f"{path} is not a model file, or was cut short. Copy it again.")


def _begins_well(file: BinaryIO, size: int) -> bool:
    """Hold the stated size of the header against the file, before anything large is read."""
    length = int.from_bytes(file.read(_LENGTH), "little")
    return 2 <= length <= min(size - _LENGTH, _MAX_HEADER) and file.read(1) == b"{"


def _header(content: bytes | bytearray) -> dict[str, Any]:
    """Parse the safetensors header; empty where it cannot be one."""
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    try:
        header = json.loads(content[_LENGTH:end])
    except (ValueError, RecursionError):
        return {}
    sound = isinstance(header, dict) and isinstance(header.get("__metadata__", {}), dict)
    return header if sound else {}


def _digest_offset(content: bytes | bytearray) -> int:
    """Where the digest stands in the file; -1 where the header does not say it."""
    entry = _header(content).get(_DIGEST)
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or not offsets or type(offsets[0]) is not int:
        return -1
    return _LENGTH + int.from_bytes(content[:_LENGTH], "little") + offsets[0]


def _digest(content: bytes | bytearray, start: int) -> bytes:
    """Digest of the file with the 16 bytes at ``start`` zero."""
    view = memoryview(content)
    digest = hashlib.blake2b(view[:start], digest_size=DIGEST_SIZE)
    digest.update(bytes(DIGEST_SIZE))
    digest.update(view[start + DIGEST_SIZE :])
    return digest.digest()


def _description(text: str, path: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads(text)
        version = description.pop("format_version")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise ModelFileError(f"{path} has a description that is no JSON of ours.") from None
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {version}; this program reads {FORMAT_VERSION}. "
            "Update it: pip install --upgrade transfer-pipeline"
        )
    return description
