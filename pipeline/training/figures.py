"""Figures of a fitted head on rows that it has not seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

__all__ = ["measure", "measure_outputs", "no_figures"]


def measure(
    head: Any, pieces: Iterable[NDArray[np.float32]], truth: Target
) -> Mapping[str, float | None]:
    """Measure a head; every row of ``truth`` has a label.

    Parameters
    ----------
    head : predictor
    pieces : iterable of float32 arrays of shape (n, n_features)
        Rows, which need not be in memory at once.
    truth : Target
        Of ``n_samples`` rows; labels that the head has never seen count as wrong. Labels are
        compared as texts: a table holds ``"3"`` where an array held 3.
    """
    if truth.kind == "class":
        both = [(head.predict(X), head.predict_proba(X)) for X in pieces]
        predicted, proba = (np.concatenate(own) for own in zip(*both, strict=True))
        classes, said = _texts(head.classes_.tolist()), _texts(predicted.tolist())
        return class_figures(_texts(truth.values), said, proba.astype(np.float64), classes)
    predicted = np.concatenate([head.predict(X) for X in pieces])
    if truth.kind == "number":
        return number_figures(truth.values, predicted.astype(np.float64))
    return _multilabel(truth, predicted, _texts(head.classes_.tolist()))


def measure_outputs(
    truth: Target, classes: NDArray[Any] | None, outputs: NDArray[np.float64]
) -> Mapping[str, float | None]:
    """Measure probabilities, or numbers, as `measure` does a head that predicts the likeliest.

    Parameters
    ----------
    truth : Target
        A label for every row.
    classes : array of shape (n_outputs,), or None for a number
    outputs : float64 array of shape (n_samples, n_outputs)
    """
    if classes is None:
        return number_figures(truth.values, outputs[:, 0])
    names = _texts(classes.tolist())
    if truth.kind == "multilabel":
        return _multilabel(truth, (outputs > 0.5).astype(np.int64), names)
    said = [names[place] for place in outputs.argmax(axis=1)]
    return class_figures(_texts(truth.values), said, outputs, names)


def _texts(labels: Iterable[Any]) -> list[str]:
    return [str(label) for label in labels]


def _multilabel(
    truth: Target, predicted: NDArray[np.int64], classes: Sequence[str]
) -> dict[str, float | None]:
    """Measure over the labels of either side, each in one column."""
    names = [*classes, *(label for label in truth.classes if label not in classes)]
    y_true, y_pred = np.zeros((2, len(truth), len(names)), int)
    y_true[:, [names.index(label) for label in truth.classes]] = truth.indicator()
    y_pred[:, : len(classes)] = predicted
    return dict(multilabel_figures(y_true, y_pred))


def no_figures(kind: str) -> dict[str, float | None]:
    """Give the figures of a kind where there is nothing to measure on."""
    names = {"class": CLASS_FIGURES, "number": NUMBER_FIGURES, "multilabel": MULTILABEL_FIGURES}
    return dict.fromkeys(names[kind])
