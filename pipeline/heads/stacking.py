"""Stacking: predictions of several members added up, each with a weight that is not negative.

The weights are those of the lowest loss on predictions that no row helped to make (Breiman,
1996, Stacked regressions); a member that brings nothing gets none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize, nnls

from pipeline.heads.judging import ClassJudge, Judge
from pipeline.heads.temperature import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["stack_weights"]


def stack_weights(members: Sequence[NDArray[np.floating]], judge: Judge) -> NDArray[np.float64]:
    """Find the weights.

    Parameters
    ----------
    members : sequence of arrays of shape (n_samples, n_outputs)
        Scores of classes, whose weighted sum is the logarithm of a probability but for a
        constant; or predicted numbers, from which their mean has been taken.
    judge : ClassJudge or NumberJudge
        The truth, from which for numbers the mean has been taken.

    Returns
    -------
    array of shape (n_members,)
    """
    if not isinstance(judge, ClassJudge):
        root = np.sqrt(judge.weight)[:, None]
        columns = [(root * member).ravel() for member in members]
        return np.asarray(nnls(np.stack(columns, axis=1), (root * judge.truth).ravel())[0])
    counted = np.flatnonzero(judge.weight)
    if not len(counted):
        return np.full(len(members), 1 / len(members))
    weight = judge.weight[counted] / judge.weight.sum()
    codes = judge.codes[counted]
    scores = np.stack([member[counted] for member in members]).astype(np.float64)
    scores -= scores.mean(axis=2, keepdims=True)
    right = scores[:, np.arange(len(codes)), codes]
    softness = 1 / (judge.weight.sum() + 2)  # as for one temperature: no mistake is no certainty
    constant = (1 - softness) * right @ weight

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = np.tensordot(weights, scores, 1)
        top = logits.max(axis=1)
        spread = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        shown = np.einsum("nc,lnc,n->l", softmax(logits), scores, weight, optimize=True)
        return float(weight @ spread - weights @ constant), shown - constant

    start = np.full(len(scores), 1 / max(float(scores.std()) * len(scores), 1e-12))
    bounds = [(0, None)] * len(scores)
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x)
