"""Figures of a trained head, measured on rows that it has never seen.

One shape whatever the number of targets; what does not apply to a kind is absent, what
could not be measured is None.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.errors import OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Candidate",
    "TargetResults",
    "calibration_error",
    "class_figures",
    "few_rows_a_class",
    "headline",
    "interval",
    "multilabel_figures",
    "number_figures",
    "results_json",
    "with_probabilities",
]

_BINS = 15
_TINY = 1e-15

CLASS_FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "majority", "log_loss", "ece")
NUMBER_FIGURES = ("r2", "mae")
MULTILABEL_FIGURES = ("macro_f1", "micro_f1")


@dataclass(frozen=True)
class Candidate:
    """One fusion and head that was compared, scored without the held-out rows.

    Parameters
    ----------
    fusion, head : str
    layers : tuple of str
    by : {"cv", "loo"}
        How the score was taken.
    score : dict of str to float or None
        ``accuracy``, ``log_loss`` and ``log_loss_se``, or ``r2``, ``mse`` and ``mse_se``; None
        where there are too few rows for it.
    seconds : float, optional
        None once it has been read from a file, which holds no clock.
    tied : bool, optional
        Whether it cannot be told apart from the lowest loss; None where nothing was compared
        row by row.
    """

    fusion: str
    head: str
    layers: tuple[str, ...]
    by: str
    score: Mapping[str, float | None]
    seconds: float | None = None
    tied: bool | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Candidate:
        """Read what `to_json` wrote."""
        names = ("fusion", "head", "by", "seconds", "tied")
        own: dict[str, Any] = {name: value.get(name) for name in names}
        score = {name: item for name, item in value.items() if name not in (*names, "layers")}
        return cls(**own, layers=tuple(value["layers"]), score=score)

    def to_json(self) -> dict[str, Any]:
        """Give the entry of ``fusions`` in the JSON output."""
        own = {"fusion": self.fusion, "head": self.head, "layers": list(self.layers), "by": self.by}
        seconds = None if self.seconds is None else round(self.seconds, 3)
        return own | dict(self.score) | {"seconds": seconds, "tied": self.tied}


@dataclass(frozen=True)
class TargetResults:
    """What is known of one target's head.

    Parameters
    ----------
    kind : {"class", "multilabel", "number"}
    figures : dict of str to float or None
        Held-out figures; None where there are no held-out rows, or too few.
    n_train, n_test : int
        Rows that were fitted and held out.
    layers : tuple of str
    fusion, head : str
    fusions : tuple of Candidate
        Everything that was compared, best first.
    """

    kind: str
    figures: Mapping[str, float | None]
    n_train: int
    n_test: int
    layers: tuple[str, ...]
    fusion: str
    head: str
    fusions: tuple[Candidate, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Give the target's entry in the JSON output."""
        rest = {
            "n_train": self.n_train,
            "n_test": self.n_test,
            "layers": list(self.layers),
            "fusion": self.fusion,
            "head": self.head,
            "fusions": [candidate.to_json() for candidate in self.fusions],
        }
        return {"kind": self.kind} | dict(self.figures) | rest

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TargetResults:
        """Read what `to_json` wrote."""
        names = set(CLASS_FIGURES + NUMBER_FIGURES + MULTILABEL_FIGURES) & set(value)
        return cls(
            kind=value["kind"],
            figures={name: value[name] for name in value if name in names},
            n_train=value["n_train"],
            n_test=value["n_test"],
            layers=tuple(value["layers"]),
            fusion=value["fusion"],
            head=value["head"],
            fusions=tuple(Candidate.from_json(entry) for entry in value["fusions"]),
        )


def class_figures(
    y_true: Sequence[Any],
    y_pred: Sequence[Any],
    proba: NDArray[np.floating],
    classes: Sequence[Any],
) -> dict[str, float]:
    """Figures of a class target.

    A label of ``y_true`` that is no class is an error whatever is predicted.

    Parameters
    ----------
    y_true, y_pred : sequences of labels
    proba : array of shape (n_samples, n_classes)
    classes : sequence of labels
        The order of the columns of ``proba``.

    Returns
    -------
    dict
        ``accuracy``, ``balanced_accuracy`` and ``macro_f1`` are scikit-learn's;
        ``majority`` is the accuracy of always saying the commonest class of ``y_true``.

    Examples
    --------
    >>> import numpy as np
    >>> figures = class_figures(["a", "b"], ["a", "b"], np.array([[0.9, 0.1], [0.2, 0.8]]), "ab")
    >>> figures["accuracy"], round(figures["log_loss"], 4), round(figures["ece"], 2)
    (1.0, 0.1643, 0.15)
    """
    import numpy as np
    from sklearn.metrics import accuracy_score, f1_score, recall_score

    known = list(classes)
    unseen = set(y_true) - set(known)
    position = {label: index for index, label in enumerate([*known, *sorted(unseen, key=str)])}
    truth = np.array([position[label] for label in y_true])
    chosen = np.array([position[label] for label in y_pred])
    seen = truth < len(known)
    own = np.where(seen, proba[np.arange(len(truth)), np.where(seen, truth, 0)], 0.0)
    averaged: dict[str, Any] = {"average": "macro", "zero_division": 0.0}
    with few_rows_a_class():
        return {
            "accuracy": float(accuracy_score(truth, chosen)),
            "balanced_accuracy": float(
                recall_score(truth, chosen, labels=np.unique(truth), **averaged)
            ),
            "macro_f1": float(f1_score(truth, chosen, **averaged)),
            "majority": float(np.unique(truth, return_counts=True)[1].max() / len(truth)),
            "log_loss": float(-np.log(np.clip(own, _TINY, 1.0)).mean()),
            "ece": calibration_error(proba.max(axis=1), truth == proba.argmax(axis=1)),
        }


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Measure the expected calibration error over 15 equal bins of the top probability.

    Guo et al. (2017), arXiv 1706.04599.

    Examples
    --------
    >>> import numpy as np
    >>> calibration_error(np.array([0.75, 0.75]), np.array([True, False]))
    0.25
    """
    import numpy as np

    edges = np.linspace(0.0, 1.0, _BINS + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, _BINS - 1)
    gap = np.bincount(which, confidence - right, minlength=_BINS)
    return float(np.abs(gap).sum() / len(confidence))


def number_figures(
    y_true: NDArray[np.floating], y_pred: NDArray[np.floating]
) -> dict[str, float | None]:
    """Figures of a number target: R squared (None for one row) and mean absolute error.

    Examples
    --------
    >>> import numpy as np
    >>> number_figures(np.array([1.0, 3.0]), np.array([1.0, 2.0]))
    {'r2': 0.5, 'mae': 0.5}
    """
    from sklearn.metrics import mean_absolute_error, r2_score

    r2 = float(r2_score(y_true, y_pred)) if len(y_true) > 1 else None
    return {"r2": r2, "mae": float(mean_absolute_error(y_true, y_pred))}


def multilabel_figures(y_true: NDArray[np.int_], y_pred: NDArray[np.int_]) -> dict[str, float]:
    """Figures of a multi-label target, from 0/1 indicators ``(n_samples, n_labels)``."""
    from sklearn.metrics import f1_score

    return {
        "macro_f1": float(f1_score(y_true, y_pred, average="macro", zero_division=0.0)),
        "micro_f1": float(f1_score(y_true, y_pred, average="micro", zero_division=0.0)),
    }


@contextmanager
def few_rows_a_class() -> Iterator[None]:
    """Keep scikit-learn from asking whether many small classes are numbers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        yield


def headline(kind: str) -> str:
    """Name the one figure of a kind that is shown first."""
    return {"class": "accuracy", "number": "r2", "multilabel": "macro_f1"}[kind]


def with_probabilities(results: Mapping[str, TargetResults]) -> list[str]:
    """Name the targets that have probabilities: all but numbers.

    Raises
    ------
    OptionError
        When there is none.
    """
    names = [name for name, found in results.items() if found.kind != "number"]
    if names:
        return names
    first, *others = map(repr, results)
    if not others:
        raise OptionError(f"target {first} is a number, and has no probabilities. Use predict.")
    raise OptionError(
        f"targets {', '.join((first, *others))} are numbers, and have no probabilities. Use "
        "predict."
    )


def interval(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of ``n`` rows (Wilson, 1927).

    Examples
    --------
    >>> [round(side, 3) for side in interval(0.9, 100)]
    [0.826, 0.945]
    """
    z = 1.959964
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def results_json(results: Mapping[str, TargetResults], seconds: float) -> dict[str, Any]:
    """Give the JSON of ``train``, ``run`` and ``evaluate``: one shape for any targets."""
    targets = {name: found.to_json() for name, found in results.items()}
    return {"targets": targets, "seconds": round(seconds, 3)}
