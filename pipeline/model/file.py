"""The container of a model file: one safetensors file that checks itself.

Its only metadata key, ``pipeline``, is JSON; a uint8 tensor ``digest`` is blake2b-128 of
the whole file with these 16 bytes zero. Nothing is parsed before the digest fits, and the
bytes depend on nothing but the content: no clock, no machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.digest import DIGEST_SIZE
from pipeline.durable import write_durably
from pipeline.errors import ModelFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FORMAT_VERSION", "read_model_file", "write_model_file"]

FORMAT_VERSION = 1
_KEY = "pipeline"
_DIGEST = "digest"
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
    """
    from safetensors.numpy import save

    text = json.dumps({"format_version": FORMAT_VERSION, **description}, sort_keys=True)
    filled = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    filled[_DIGEST] = np.zeros(DIGEST_SIZE, np.uint8)
    content = bytearray(save(filled, metadata={_KEY: text}))
    start = _digest_offset(_header(bytes(content[:8]), bytes(content[8:]), path), content)
    content[start : start + DIGEST_SIZE] = hashlib.blake2b(
        content, digest_size=DIGEST_SIZE
    ).digest()
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
    if not path.is_file():
        raise ModelFileError(f"no model file at {path}. `pipeline train` or `run` writes one.")
    content = path.read_bytes()
    header = _header(content[:8], content[8:], path)
    text = header.get("__metadata__", {}).get(_KEY)
    if not isinstance(text, str):
        raise ModelFileError(f"{path} is a safetensors file, but not a model of this program.")
    _check_digest(content, header, path)
    try:
        description = json.loads(text)
        version = description.pop("format_version")
    except (ValueError, KeyError, AttributeError):
        raise ModelFileError(f"{path} has a description that is no JSON of ours.") from None
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {version}; this program reads {FORMAT_VERSION}. "
            "Update it: pip install --upgrade transfer-pipeline"
        )
    from safetensors.numpy import load

    tensors = load(content)
    del tensors[_DIGEST]
    return description, tensors


def _header(size: bytes, rest: bytes, path: Path) -> dict[str, Any]:
    """Parse the safetensors header, its stated size held against the file first."""
    length = int.from_bytes(size, "little")
    if len(size) == 8 and 2 <= length <= min(len(rest), _MAX_HEADER) and rest[:1] == b"{":
        try:
            header = json.loads(rest[:length])
        except (ValueError, RecursionError):
            header = None
        if isinstance(header, dict) and isinstance(header.get("__metadata__", {}), dict):
            return header
    raise ModelFileError(f"{path} is not a model file, or was cut short. Copy it again.")


def _digest_offset(header: Mapping[str, Any], content: bytes | bytearray) -> int:
    entry = header.get(_DIGEST)
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or type(offsets[0]) is not int:
        return -1
    return 8 + int.from_bytes(content[:8], "little") + int(offsets[0])


def _check_digest(content: bytes, header: Mapping[str, Any], path: Path) -> None:
    start = _digest_offset(header, content)
    stored = content[start : start + DIGEST_SIZE] if start >= 0 else b""
    digest = hashlib.blake2b(digest_size=DIGEST_SIZE)
    digest.update(content[: max(start, 0)])
    digest.update(bytes(DIGEST_SIZE))
    digest.update(content[start + DIGEST_SIZE :])
    if digest.digest() != stored:
        raise ModelFileError(
            f"{path} is damaged: its bytes are not those that were written. "
            "Copy it again, or train it again from its cache."
        )
