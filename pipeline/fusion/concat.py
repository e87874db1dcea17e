"""ConcatFusion: layers side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.fusion.fuser import LayerFuser

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ConcatFusion"]


class ConcatFusion(LayerFuser):
    """Puts scaled layers side by side.

    Parameters
    ----------
    layer_slices : dict of str to slice, or None
        Columns of each layer; None takes ``X`` for one layer.
    scaling : {"trace", "standard", "shrunk", "l2", "none"}
        See `LayerFuser`.

    Attributes
    ----------
    layers_ : dict of str to (int, int)
        Start and stop column of every layer.
    offset_, factor_ : arrays of shape (n_features,)
        The scaled value of a column is ``(x - offset_) * factor_``.

    Examples
    --------
    >>> X = np.array([[0.0, 1.0, 5.0], [2.0, 3.0, 9.0]])
    >>> fuser = ConcatFusion({"low": slice(0, 2), "high": slice(2, 3)}).fit(X)
    >>> fuser.transform(X).round(3)
    array([[-0.866, -0.866, -1.225], [ 0.866,  0.866,  1.225]])
    >>> fuser.get_feature_names_out().tolist()
    ['low:0', 'low:1', 'high:0']
    """

    def _fuse(self, X: NDArray[Any]) -> NDArray[np.floating[Any]]:
        return np.concatenate([self.scaled(X, layer) for layer in self.layers_], axis=1)

    def _names_out(self) -> list[str]:
        return [
            f"{layer}:{index}"
            for layer, (start, stop) in self.layers_.items()
            for index in range(stop - start)
        ]
