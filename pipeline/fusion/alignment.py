"""Alignment: layers of different widths brought into one space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["orthonormal_maps"]


def orthonormal_maps(widths: Mapping[str, int], random: Any) -> dict[str, NDArray[np.float32]]:
    """Draw a map of orthonormal rows for every layer that is narrower than the widest.

    It keeps all lengths and angles within the layer, and lays different layers in directions
    of their own.

    Parameters
    ----------
    widths : dict of str to int
    random : RandomState

    Returns
    -------
    dict of str to array of shape (width, greatest width)

    Examples
    --------
    >>> maps = orthonormal_maps({"low": 2, "high": 3}, np.random.RandomState(0))
    >>> list(maps), np.allclose(maps["low"] @ maps["low"].T, np.eye(2), atol=1e-6)
    (['low'], True)
    """
    widest = max(widths.values())
    return {
        layer: np.linalg.qr(random.normal(size=(widest, width)))[0].T.astype(np.float32)
        for layer, width in widths.items()
        if width < widest
    }
