"""Scores of out-of-fold predictions: a figure, its loss and the loss's standard error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.samples import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["predictions_of", "score_of"]

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


def score_of(truth: Target, output: NDArray[np.floating]) -> dict[str, float]:
    """Score out-of-fold output: a figure, its loss and the loss's standard error."""
    if truth.kind == "number":
        errors = (truth.values - output) ** 2
        spread = float(((truth.values - truth.values.mean()) ** 2).mean())
        r2 = 1 - float(errors.mean()) / spread if spread else math.nan
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


def _mean_and_error(name: str, losses: NDArray[np.floating]) -> dict[str, float]:
    error = losses.std(ddof=1) / math.sqrt(len(losses)) if len(losses) > 1 else math.nan
    return {name: float(losses.mean()), f"{name}_se": float(error)}
