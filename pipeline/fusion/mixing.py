"""Softmax weights of layers, learned together with a linear head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["learn_mixing"]

_MOST_ROWS = 2_000
_PENALTY = 1e-3
_STEPS = 100


def learn_mixing(layers: Sequence[NDArray[np.floating]], y: Any) -> NDArray[np.float64]:
    """Learn how much of each layer a linear head wants.

    Minimises the log-loss (squared error for numbers) of ``softmax(a)``-weighted layers
    under a linear head with a small L2 penalty, over both at once, by L-BFGS, from equal
    weights; of more than 2,000 rows, every n-th is looked at.

    Parameters
    ----------
    layers : sequence of arrays of shape (n_samples, width)
        Scaled, of one width.
    y : array of shape (n_samples,) or (n_samples, n_labels)

    Returns
    -------
    array of shape (n_layers,)
        Weights that add up to 1.
    """
    from scipy.optimize import minimize

    step = max(len(layers[0]) // _MOST_ROWS, 1)
    stack = np.stack([layer[::step] for layer in layers]).astype(np.float64)  # (L, n, k)
    goal, classes = _goal(np.asarray(y)[::step])
    n_layers, n_samples, width = stack.shape
    n_outputs = goal.shape[1]

    def loss(packed: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mixing = _softmax(packed[:n_layers])
        coef = packed[n_layers:-n_outputs].reshape(width, n_outputs)
        mixed = np.tensordot(mixing, stack, axes=1)
        scores = mixed @ coef + packed[-n_outputs:]
        value, slope = _loss(scores, goal, classes)
        value += 0.5 * _PENALTY * float((coef**2).sum())
        back = slope @ coef.T
        towards = np.einsum("lnk,nk->l", stack, back)
        gradient = np.concatenate(
            [
                mixing * (towards - mixing @ towards),
                (mixed.T @ slope + _PENALTY * coef).ravel(),
                slope.sum(axis=0),
            ]
        )
        return value, gradient

    start = np.zeros(n_layers + width * n_outputs + n_outputs)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
    return _softmax(found.x[:n_layers])


def _goal(y: NDArray[Any]) -> tuple[NDArray[np.float64], bool]:
    """Give one-hot classes, or standardised numbers."""
    if y.ndim == 1 and y.dtype.kind == "f" and len(np.unique(y)) > 20:
        spread = y.std() or 1.0
        return ((y - y.mean()) / spread)[:, None], False
    if y.ndim == 2:
        return y.astype(np.float64), False
    _, codes = np.unique(y, return_inverse=True)
    return np.eye(codes.max() + 1)[codes], True


def _loss(
    scores: NDArray[np.float64], goal: NDArray[np.float64], classes: bool
) -> tuple[float, NDArray[np.float64]]:
    """Mean loss, and its slope by score."""
    n_samples = len(scores)
    if not classes:
        error = scores - goal
        return 0.5 * float((error**2).sum()) / n_samples, error / n_samples
    proba = _softmax(scores)
    own = np.clip((proba * goal).sum(axis=1), 1e-300, None)
    return -float(np.log(own).mean()), (proba - goal) / n_samples


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
