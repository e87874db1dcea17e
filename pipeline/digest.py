"""Content digests: 16 bytes of blake2b name a content, wherever it lies.

The digest of a row's input identifies the row; the digest of a network's
weights identifies the network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["DIGEST_SIZE", "digest_array", "digest_arrays", "digest_bytes", "digest_json"]

DIGEST_SIZE = 16
"""Bytes in a digest."""


def digest_bytes(content: bytes | bytearray | memoryview) -> bytes:
    """Digest of a byte string.

    Examples
    --------
    >>> digest_bytes(b"a photo").hex()
    '3214bef83cd396d2542a3d174059f15b'
    """
    return hashlib.blake2b(content, digest_size=DIGEST_SIZE).digest()


def digest_array(array: NDArray[Any]) -> bytes:
    """Digest of an array: its dtype, its shape and its values."""
    return digest_arrays({"": array})


def digest_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Digest of named arrays, in the order of their names.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        For instance the tensors of a network's state dict.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_SIZE)
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.str, list(array.shape)]).encode())
        digest.update(_contiguous(array).data.cast("B") if array.size else b"")
    return digest.digest()


def digest_json(value: Any) -> bytes:
    """Digest of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return digest_bytes(text.encode())


def _contiguous(array: NDArray[Any]) -> NDArray[np.uint8]:
    """View an array as bytes, copying only when its memory has gaps."""
    import numpy as np

    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
