"""Layers with an equal say, and the penalty of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, get_args

import numpy as np

from pipeline.errors import OptionError
from pipeline.fusion import ColumnScaling, column_factors, find_layer
from pipeline.heads.evidence import evidence_penalties
from pipeline.heads.linear_map import LinearMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.heads.ridge_rows import RidgeRows

__all__ = ["Penalties", "layer_factors", "layer_penalties", "penalised"]

Penalties = str | Mapping[str, float]
Layers = Mapping[str, tuple[int, int]]


def layer_factors(rows: RidgeRows, layers: Layers, scaling: str) -> NDArray[np.float64]:
    """Factor of every column of ``X``: layers of equal variance, 0 for what is constant."""
    if scaling not in get_args(ColumnScaling):
        raise OptionError(
            f"scaling is {scaling!r}, but must be one of {', '.join(get_args(ColumnScaling))}."
        )
    return column_factors(rows.x_variance, [slice(*span) for span in layers.values()], scaling)


def layer_penalties(
    rows: RidgeRows, fusion: LinearMap, layers: Layers, penalties: Penalties
) -> NDArray[np.float64]:
    """Relative penalty of each layer.

    Evidence's are divided by their weighted mean, so that the same strengths suit all.

    Raises
    ------
    OptionError
        For a penalty that is not above 0, or a word that is none of ours.
    """
    if isinstance(penalties, Mapping):
        return _given(penalties, list(layers))
    if penalties == "uniform":
        return np.ones(len(layers))
    if penalties != "evidence":
        raise OptionError(
            f"penalties is {penalties!r}, but must be uniform, evidence, or a number above 0 for "
            "each layer."
        )
    found = evidence_penalties(rows, fusion, [slice(*span) for span in layers.values()])
    widths = np.array([stop - start for start, stop in layers.values()])
    return np.asarray(found * (widths / found).sum() / widths.sum())


def penalised(fusion: LinearMap, layers: Layers, penalties: NDArray[np.float64]) -> LinearMap:
    """Put the penalty of each layer into its factors: ridge at strength 1 does the rest."""
    factors = fusion.factors.copy()
    for (start, stop), penalty in zip(layers.values(), penalties, strict=True):
        factors[start:stop] /= np.sqrt(penalty)
    return LinearMap(fusion.columns, factors)


def _given(penalties: Mapping[str, float], layers: list[str]) -> NDArray[np.float64]:
    by_name = {find_layer(name, layers): value for name, value in penalties.items()}
    values = np.array([by_name.get(name, 1.0) for name in layers], np.float64)
    if not (np.isfinite(values) & (values > 0)).all():
        raise OptionError(
            f"penalties is {dict(penalties)!r}, but must hold a finite number above 0 for each "
            f"layer that it names, of {', '.join(layers)}; the others get 1."
        )
    return values
