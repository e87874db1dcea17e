"""ScaledLayers: what every fuser begins with, each layer centred and scaled to equal weight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from pipeline.errors import OptionError, UnknownNameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ScaledLayers"]

SCALINGS = ("trace", "standard", "none")


class ScaledLayers(TransformerMixin, BaseEstimator):
    """Base of the fusers: splits one matrix into layers, and scales each.

    With ``scaling="trace"`` a layer is centred and divided by one number, so that all layers
    have the same total variance and a mean variance of one a feature:
    ``(x - mean) / sqrt(total variance of the layer / (D / L))`` for ``D`` features in ``L``
    layers. ``"standard"`` divides every feature by its own deviation first. ``"none"``
    leaves the values as they are. Constant features become 0.
    """

    layer_slices: Mapping[str, slice] | None
    scaling: str

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn means and scales, and whatever the fuser learns.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Layers side by side, at the columns that ``layer_slices`` names.
        y : array, optional
            Labels or numbers; only learned weights look at them.
        """
        X = self._matrix(X, reset=True)
        self.layer_slices_ = self._checked_slices(X.shape[1])
        self.mean_, self.scale_ = self._statistics(X)
        self._learn(X, y)
        return self

    def _learn(self, X: NDArray[np.floating], y: Any) -> None:
        """Learn more than means and scales: most fusers do not."""

    def _matrix(self, X: Any, *, reset: bool) -> NDArray[np.floating]:
        if getattr(X, "dtype", None) == np.float16:
            X = np.asarray(X, np.float32)
        found: NDArray[np.floating] = validate_data(
            self, X, dtype=[np.float64, np.float32], reset=reset
        )
        return found

    def _checked_slices(self, n_features: int) -> dict[str, slice]:
        slices = dict(self.layer_slices) if self.layer_slices else {"all": slice(0, n_features)}
        end = max(own.stop for own in slices.values())
        if end > n_features:
            raise OptionError(
                f"layer_slices reach to column {end}, but X has {n_features} columns. Give the "
                "slices that came with this matrix."
            )
        return slices

    def _statistics(
        self, X: NDArray[np.floating]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        if self.scaling not in SCALINGS:
            raise UnknownNameError("scaling", str(self.scaling), SCALINGS)
        mean, scale = np.zeros(X.shape[1], X.dtype), np.ones(X.shape[1], X.dtype)
        if self.scaling == "none":
            return mean, scale
        used = sum(own.stop - own.start for own in self.layer_slices_.values())
        share = used / len(self.layer_slices_)
        for own in self.layer_slices_.values():
            values = X[:, own].astype(np.float64)
            mean[own] = values.mean(axis=0)
            deviation = values.std(axis=0)
            flat = deviation <= 1e-7 * np.maximum(np.abs(values).max(axis=0), 1e-30)
            if self.scaling == "standard":
                own_scale = np.where(flat, 1.0, deviation)
                own_scale = own_scale * math.sqrt((own.stop - own.start) / share)
            else:
                total = float((deviation**2)[~flat].sum())
                own_scale = np.full(len(flat), math.sqrt(total / share) if total else 1.0)
            scale[own] = own_scale
        return mean, scale

    def _scaled(self, X: Any) -> dict[str, NDArray[np.floating]]:
        """Give every layer centred and scaled."""
        check_is_fitted(self)
        X = self._matrix(X, reset=False)
        return {
            name: (X[:, own] - self.mean_[own]) / self.scale_[own]
            for name, own in self.layer_slices_.items()
        }

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
