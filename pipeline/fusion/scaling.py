"""What every column is multiplied by, so that layers have an equal say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ColumnScaling", "column_factors"]

ColumnScaling = Literal["trace", "standard", "shrunk"]


def column_factors(
    variance: NDArray[np.float64], spans: Sequence[Any], scaling: str
) -> NDArray[np.float64]:
    """Find the factor of every column.

    Within a layer ``trace`` leaves columns as they are, ``standard`` gives each the variance 1,
    and ``shrunk`` divides by the root of a variance halfway between its own and its layer's
    mean. Then every layer is given the same total variance, 1 a column on average.

    Parameters
    ----------
    variance : array of shape (n_features,)
        0 for a constant column, whose factor is 0.
    spans : sequence of slices or index arrays
        Columns of each layer.
    scaling : {"trace", "standard", "shrunk"}

    Examples
    --------
    >>> column_factors(np.array([4.0, 0.0, 9.0]), [slice(0, 2), slice(2, 3)], "standard")
    array([0.5       , 0.        , 0.33333333])
    """
    factors = np.zeros(len(variance))
    varies = variance > 0
    share = sum(varies[span].sum() for span in spans) / len(spans)
    for span in spans:
        own = variance[span][varies[span]]
        if not len(own):
            continue
        if scaling == "trace":
            scale = np.ones(len(own))
        elif scaling == "standard":
            scale = 1 / np.sqrt(own)
        else:
            scale = 1 / np.sqrt((own + own.mean()) / 2)
        scale *= np.sqrt(share / (own * scale**2).sum())
        of_layer = np.zeros(len(variance[span]))
        of_layer[varies[span]] = scale
        factors[span] = of_layer
    return factors
