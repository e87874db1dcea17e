"""Scores of out-of-fold predictions: a figure, its loss and the loss's standard error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.samples import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["no_score", "predictions_of", "score_of"]

_TINY = 1e-15


def predictions_of(fitted: Any, X: NDArray[np.float32], target: Target) -> NDArray[np.floating]:
    """Give probabilities in the order of the target's classes, or numbers."""
    if target.kind == "number":
        return np.asarray(fitted.predict(X), dtype=np.float64)
    proba = np.asarray(fitted.predict_proba(X), dtype=np.float64)
    if target.kind == "multilabel":
        return proba
    full = np.zeros((len(X), len(target.classes)))
    places = {label: place for place, label in enumerate(target.labels.tolist())}
    full[:, [places[label] for label in fitted.classes_.tolist()]] = proba
    return full


def score_of(truth: Target, output: NDArray[np.floating]) -> dict[str, float | None]:
    """Score out-of-fold output: a figure, its loss and the loss's standard error.

    Parameters
    ----------
    truth : Target
        Of n rows, each with a label.
    output : array of shape (n, classes), or (n,) for a number
        What `predictions_of` gave.

    Returns
    -------
    dict
        ``accuracy`` (share of right cells for several labels), ``log_loss`` (mean over the
        labels of a row) and ``log_loss_se``; or ``r2``, ``mse`` and ``mse_se``. None for what
        needs more rows or different values.
    """
    if truth.kind == "number":
        errors = (truth.values - output) ** 2
        spread = float(truth.values.var())
        r2 = 1 - float(errors.mean()) / spread if spread else None
        return {"r2": r2} | _mean_and_error("mse", errors)
    if truth.kind == "multilabel":
        shown = truth.indicator()
        own = np.where(shown, output, 1 - output)
        return {"accuracy": float(((output > 0.5) == shown).mean())} | _mean_and_error(
            "log_loss", -np.log(np.clip(own, _TINY, 1)).mean(axis=1)
        )
    codes = truth.encode()
    own = output[np.arange(len(codes)), codes]
    return {"accuracy": float((output.argmax(axis=1) == codes).mean())} | _mean_and_error(
        "log_loss", -np.log(np.clip(own, _TINY, 1))
    )


def no_score(kind: str) -> dict[str, float | None]:
    """Give the score of a kind where there are too few rows to compare on."""
    names = ("r2", "mse", "mse_se") if kind == "number" else ("accuracy", "log_loss", "log_loss_se")
    return dict.fromkeys(names)


def _mean_and_error(name: str, losses: NDArray[np.floating]) -> dict[str, float | None]:
    error = float(losses.std(ddof=1)) / math.sqrt(len(losses)) if len(losses) > 1 else None
    return {name: float(losses.mean()), f"{name}_se": error}
