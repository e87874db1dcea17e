"""Figures of a fitted head on rows that it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.results import (
    CLASS_FIGURES,
    MULTILABEL_FIGURES,
    NUMBER_FIGURES,
    class_figures,
    multilabel_figures,
    number_figures,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.samples import Target

__all__ = ["measure", "no_figures"]


def measure(head: Any, X: NDArray[np.float32], truth: Target) -> dict[str, float]:
    """Measure a head; every row of ``truth`` has a label.

    Parameters
    ----------
    head : predictor
    X : float32 array of shape (n_samples, n_features)
    truth : Target
        Of ``n_samples`` rows; labels that the head has never seen count as wrong.
    """
    if truth.kind == "number":
        return number_figures(truth.values, np.asarray(head.predict(X), np.float64))
    if truth.kind == "multilabel":
        return multilabel_figures(truth.indicator().astype(int), np.asarray(head.predict(X)))
    return class_figures(
        list(truth.values), head.predict(X).tolist(), head.predict_proba(X), head.classes_.tolist()
    )


def no_figures(kind: str) -> dict[str, float | None]:
    """Give the figures of a kind where there is nothing to measure on."""
    names = {"class": CLASS_FIGURES, "number": NUMBER_FIGURES, "multilabel": MULTILABEL_FIGURES}
    return dict.fromkeys(names[kind])
