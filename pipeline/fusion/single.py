"""SingleLayer: one layer alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.fusion.fuser import LayerFuser, Scaling
from pipeline.fusion.slices import find_layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SingleLayer"]


class SingleLayer(LayerFuser):
    """Keeps one layer and scales it.

    Parameters
    ----------
    layer_slices : dict of str to slice, or None
        Columns of each layer; None takes ``X`` for one layer.
    layer : str, optional
        Full name, or the tap where only one layer has it; None takes the last.
    scaling : {"trace", "standard", "shrunk", "l2", "none"}
        See `LayerFuser`.

    Attributes
    ----------
    layer_ : str
        Full name of the layer that is kept.

    Raises
    ------
    UnknownNameError
        In `fit`, when there is no such layer.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0, 1.0, 5.0], [2.0, 3.0, 9.0]])
    >>> slices = {"low": slice(0, 2), "high": slice(2, 3)}
    >>> SingleLayer(slices, layer="high").fit_transform(X).ravel()
    array([-1.,  1.])
    """

    def __init__(
        self,
        layer_slices: Mapping[str, slice] | None = None,
        *,
        layer: str | None = None,
        scaling: Scaling = "trace",
    ) -> None:
        super().__init__(layer_slices, scaling=scaling)
        self.layer = layer

    def _fit_scaling(self, X: NDArray[Any]) -> None:
        name = list(self.layers_)[-1] if self.layer is None else self.layer
        self.layer_ = find_layer(name, self.layers_)
        self.layers_ = {self.layer_: self.layers_[self.layer_]}
        super()._fit_scaling(X)

    def _fuse(self, X: NDArray[Any]) -> NDArray[np.floating[Any]]:
        return self.scaled(X, self.layer_)

    def _names_out(self) -> list[str]:
        start, stop = self.layers_[self.layer_]
        return [f"{self.layer_}:{index}" for index in range(stop - start)]
