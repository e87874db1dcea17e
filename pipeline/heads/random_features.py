"""RandomFeatures: what a linear head cannot tell apart, laid out so that it can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from pipeline.errors import OptionError
from pipeline.fusion import column_factors, resolve_slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.heads.looking import Passes

__all__ = ["MOST_COMPONENTS", "RandomFeatures", "usual_components"]

_FEWEST_COMPONENTS, MOST_COMPONENTS = 512, 4096


class RandomFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Rectified random projections of scaled layers: ``max(0, z R)``.

    A ridge on them is a kernel machine whose cost grows with ``n_components`` and not with the
    rows (Rahimi and Recht, 2007; on frozen features: McDonnell et al., 2023, RanPAC, arXiv
    2307.02251).

    Parameters
    ----------
    n_components : int
    layer_slices : dict of str to slice, or None
        Columns of each layer, which get an equal say; None takes ``X`` for one layer.
    scaling : {"shrunk", "standard", "trace"}
        Of the features within a layer, see `LayerRidgeClassifier`.
    random_state : int, RandomState or None

    Attributes
    ----------
    offset_, factor_ : arrays of shape (n_features,)
        The scaled value of a column is ``(x - offset_) * factor_``.
    projection_ : float32 array of shape (n_features, n_components)

    Examples
    --------
    >>> X = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    >>> RandomFeatures(8).fit_transform(X).shape
    (4, 8)
    """

    def __init__(
        self,
        n_components: int = 2048,
        *,
        layer_slices: Mapping[str, slice] | None = None,
        scaling: str = "shrunk",
        random_state: Any = 0,
    ) -> None:
        self.n_components = n_components
        self.layer_slices = layer_slices
        self.scaling = scaling
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn means and scales, and draw the projection."""
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        return self.fit_passes(lambda: iter([X]))

    def fit_passes(self, passes: Passes, weight: NDArray[np.float64] | None = None) -> Self:
        """Fit on rows that need not be in memory at once, of which some may weigh more."""
        if self.n_components < 1:
            raise OptionError(
                f"n_components is {self.n_components}, but must be at least 1. 2048 is usual."
            )
        moments = StandardScaler().set_output(transform="default")
        start = 0
        for X in passes():
            own = None if weight is None else weight[start : start + len(X)]
            moments.partial_fit(X, sample_weight=own)
            start += len(X)
        # StandardScaler divides a feature that it holds for constant by 1.
        varies = np.isclose(moments.var_, moments.scale_**2, atol=0)
        variance = np.where(varies, moments.var_, 0)
        layers = resolve_slices(self.layer_slices, len(variance), whole=True)
        spans = [slice(*span) for span in layers.values()]
        self.offset_ = moments.mean_
        self.factor_ = column_factors(variance, spans, self.scaling)
        random = check_random_state(self.random_state)
        shape = (len(variance), self.n_components)
        spread = max(float(np.count_nonzero(varies)), 1.0) ** 0.5
        self.projection_ = (random.normal(size=shape) / spread).astype(np.float32)
        self.n_features_in_ = len(variance)
        return self

    def transform(self, X: Any) -> NDArray[np.floating]:
        """Project: array of shape (n_samples, n_components), in the type of ``X``."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scaled = (X - self.offset_.astype(X.dtype)) * self.factor_.astype(X.dtype)
        projected = scaled @ self.projection_.astype(X.dtype)
        return np.asarray(np.maximum(projected, 0, out=projected))

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def usual_components(n_samples: int) -> int:
    """Say how many random features suit some rows: as many as rows, from 512 to 4,096.

    Examples
    --------
    >>> usual_components(100), usual_components(1000), usual_components(10**6)
    (512, 1000, 4096)
    """
    return min(max(n_samples, _FEWEST_COMPONENTS), MOST_COMPONENTS)
