"""Layers on top of each other: their mean, or a weighted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import InputError, OptionError
from pipeline.fusion.concat import names_of
from pipeline.fusion.mixing import learn_mixing
from pipeline.fusion.scaled import ScaledLayers

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AverageFusion", "WeightedFusion"]


class WeightedFusion(ScaledLayers):
    """Weighted mean of the layers, as ELMo mixes them (Peters et al., 2018, arXiv 1802.05365).

    Layers of unequal width are aligned first: each is carried into the width of the widest
    by a fixed random matrix with orthonormal rows, which keeps all distances within the
    layer. Layers of that width stay as they are when all have it.

    Parameters
    ----------
    layer_slices : dict of str to slice, optional
    weights : None, sequence or dict of float, or "learned"
        None: all equal. Numbers, one a layer: divided by their sum. ``"learned"``: softmax
        weights, trained together with a linear head on the labels.
    scaling : {"trace", "standard", "none"}
    random_state : int
        Seed of the alignment.

    Attributes
    ----------
    weights_ : array of shape (n_layers,)
        They add up to 1.

    Examples
    --------
    >>> X = np.array([[0.0, 10.0], [2.0, 30.0]])
    >>> slices = {"low": slice(0, 1), "high": slice(1, 2)}
    >>> WeightedFusion(slices, weights=[3, 1]).fit(X).weights_
    array([0.75, 0.25])
    """

    def __init__(
        self,
        layer_slices: Mapping[str, slice] | None = None,
        *,
        weights: Sequence[float] | Mapping[str, float] | str | None = None,
        scaling: str = "trace",
        random_state: int = 0,
    ) -> None:
        self.layer_slices = layer_slices
        self.weights = weights
        self.scaling = scaling
        self.random_state = random_state

    def _learn(self, X: NDArray[np.floating], y: Any) -> None:
        self.projections_ = _alignment(self.layer_slices_, self.random_state, X.dtype)
        if isinstance(self.weights, str):
            if self.weights != "learned":
                raise OptionError(
                    f"weights is {self.weights!r}, but must be 'learned', numbers or None."
                )
            if y is None:
                raise InputError(
                    "learned weights need labels, but y is None. Pass y to fit, or give weights."
                )
            self.weights_ = learn_mixing(list(self._aligned(X).values()), y)
        else:
            self.weights_ = _normalised(self.weights, list(self.layer_slices_))

    def _aligned(self, X: Any) -> dict[str, NDArray[np.floating]]:
        return {
            name: values @ self.projections_[name] if name in self.projections_ else values
            for name, values in self._scaled(X).items()
        }

    def transform(self, X: Any) -> NDArray[np.floating]:
        """Give the weighted mean: shape (n_samples, widest layer)."""
        layers = list(self._aligned(X).values())
        mean = np.zeros_like(layers[0])
        for weight, values in zip(self.weights_.astype(mean.dtype), layers, strict=True):
            mean += weight * values
        return mean

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name every column ``mean:index``."""
        widest = max(own.stop - own.start for own in self.layer_slices_.values())
        return names_of({"mean": widest})

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = isinstance(self.weights, str)
        return tags


class AverageFusion(WeightedFusion):
    """Mean of the layers, aligned as `WeightedFusion` aligns them.

    Parameters
    ----------
    layer_slices : dict of str to slice, optional
    scaling : {"trace", "standard", "none"}
    random_state : int

    Examples
    --------
    >>> X = np.array([[0.0, 10.0], [2.0, 30.0]])
    >>> AverageFusion({"low": slice(0, 1), "high": slice(1, 2)}).fit_transform(X)
    array([[-1.],
           [ 1.]])
    """

    def __init__(
        self,
        layer_slices: Mapping[str, slice] | None = None,
        *,
        scaling: str = "trace",
        random_state: int = 0,
    ) -> None:
        super().__init__(layer_slices, scaling=scaling, random_state=random_state)


def _alignment(
    slices: Mapping[str, slice], random_state: int, dtype: Any
) -> dict[str, NDArray[np.floating]]:
    """Matrices with orthonormal rows into the width of the widest layer."""
    widths = {name: own.stop - own.start for name, own in slices.items()}
    widest = max(widths.values())
    if min(widths.values()) == widest:
        return {}
    projections = {}
    for place, (name, width) in enumerate(widths.items()):
        if width == widest:
            continue
        rng = np.random.default_rng([random_state, place])
        basis, _ = np.linalg.qr(rng.standard_normal((widest, width)))
        projections[name] = np.ascontiguousarray(basis.T, dtype=dtype)
    return projections


def _normalised(
    weights: Sequence[float] | Mapping[str, float] | None, names: Sequence[str]
) -> NDArray[np.float64]:
    if weights is None:
        return np.full(len(names), 1 / len(names))
    if isinstance(weights, Mapping):
        if set(weights) != set(names):
            raise OptionError(
                f"weights name the layers {', '.join(weights)}, but the layers are "
                f"{', '.join(names)}. Give each its weight."
            )
        weights = [weights[name] for name in names]
    numbers = np.asarray(weights, np.float64)
    if numbers.shape != (len(names),) or (numbers < 0).any() or not numbers.sum() > 0:
        raise OptionError(
            f"weights are {list(weights)}, but must be {len(names)} numbers, none below 0 and "
            "not all 0: one for each layer, bottom to top."
        )
    return numbers / numbers.sum()
