"""Evidence: one penalty a layer from the data alone, without a fit to compare with.

Weights of layer ``l`` are normal with precision ``p_l``, noise with precision ``q``, both
shared by all outputs; the fixed point of MacKay (1992) climbs to the precisions under which
the labels are likeliest. A layer that explains nothing ends with a penalty that drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, lapack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.heads.linear_map import LinearMap
    from pipeline.heads.ridge_rows import RidgeRows

__all__ = ["evidence_penalties"]

_ROUNDS = 10
_SETTLED = 1e-2
"""Change of the logarithm of a penalty that is not worth another round."""
_LEAST_NOISE = 1e-2
"""Share of the outputs' variance that is taken for noise at least: fewer rows than features
explain anything, and would end without any penalty."""
_SMALLEST, _GREATEST = 1e-6, 1e12
_NOTHING = 1e-200

Look = Callable[[Any, float], tuple[Any, Any, float]]
"""Gives, for precisions of the layers and of the noise, what the next round asks about each
layer: its penalty times its share of the inverse's trace, and the squared length of its weights;
and the squared residual."""


def evidence_penalties(
    rows: RidgeRows, fusion: LinearMap, spans: Sequence[slice]
) -> NDArray[np.float64]:
    """Find the penalty of each layer.

    Parameters
    ----------
    rows : RidgeRows
    fusion : LinearMap
        Scaled columns of all layers.
    spans : sequence of slices
        Features of each layer after the map.

    Returns
    -------
    array of shape (n_layers,)
        To be added to the eigenvalues of ``X'WX``; a layer at 1e12 is as good as dropped.
    """
    n, k = rows.total, rows.Y.shape[1]
    widths = np.array([span.stop - span.start for span in spans])
    if not rows.yy > _NOTHING:
        return np.ones(len(spans))
    noise = n * k / rows.yy
    most = noise / _LEAST_NOISE
    precision = np.full(len(spans), noise * n / 20)
    look = _kernels(rows, fusion, spans) if rows.is_wide(fusion) else _gram(rows, fusion, spans)
    for _ in range(_ROUNDS):
        traces, lengths, rss = look(precision, noise)
        used = np.clip(widths - traces, 1e-9, None)
        fresh = np.clip(k * used / np.maximum(lengths, 1e-300), _SMALLEST, _GREATEST)
        noise = min(max(n * k - k * used.sum(), 1e-9) / max(rss, 1e-300), most)
        moved = np.abs(np.log(fresh / precision)).max()
        precision = fresh
        if moved < _SETTLED:
            break
    return np.asarray(np.clip(precision / noise, _SMALLEST, _GREATEST))


def _gram(rows: RidgeRows, fusion: LinearMap, spans: Sequence[slice]) -> Look:
    """Look at the moments, in the space of the features."""
    gram, cross = rows.gram(fusion)
    each = np.repeat(np.arange(len(spans)), [span.stop - span.start for span in spans])

    def look(precision: NDArray[np.float64], noise: float) -> tuple[Any, Any, float]:
        penalised = noise * gram
        penalised.flat[:: len(gram) + 1] += precision[each]
        factor = cho_factor(penalised, lower=True, overwrite_a=True)
        weights = noise * cho_solve(factor, cross)
        inverse, _ = lapack.dpotri(factor[0], lower=1)
        traces = precision * np.bincount(each, np.diag(inverse))
        lengths = np.bincount(each, np.einsum("ij,ij->i", weights, weights))
        rss = rows.yy - 2 * np.sum(weights * cross) + np.sum(weights * (gram @ weights))
        return traces, lengths, float(rss)

    return look


def _kernels(rows: RidgeRows, fusion: LinearMap, spans: Sequence[slice]) -> Look:
    """Look at the kernels of the layers, in the space of the rows."""
    features = rows.features(fusion)
    widths = np.array([span.stop - span.start for span in spans])
    kernels = np.stack([features[:, span] @ features[:, span].T for span in spans])

    def look(precision: NDArray[np.float64], noise: float) -> tuple[Any, Any, float]:
        covariance = np.tensordot(1 / precision, kernels, 1)
        covariance.flat[:: len(covariance) + 1] += 1 / noise
        factor = cho_factor(covariance, lower=True, overwrite_a=True)
        pulled = cho_solve(factor, rows.outputs)
        inverse = cho_solve(factor, np.eye(len(covariance)))
        traces = widths - np.einsum("ij,lij->l", inverse, kernels) / precision
        lengths = np.einsum("ik,lij,jk->l", pulled, kernels, pulled, optimize=True) / precision**2
        return traces, lengths, float(np.sum(pulled**2) / noise**2)

    return look
