"""Judges: how much predictions lose, row by row, and the temperature at which they lose least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.heads.temperature import best_temperature, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ClassJudge", "Judge", "NumberJudge", "Verdict"]

_TINY = 1e-15


@dataclass(frozen=True, eq=False)
class Verdict:
    """What scores are worth.

    Parameters
    ----------
    losses : array of shape (n_samples,)
        Log-loss or squared error of each row.
    loss : float
        Weighted mean over the rows that count.
    temperature : float
        1 for numbers.
    """

    losses: NDArray[np.float64]
    loss: float
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class ClassJudge:
    """Judges scores of classes by log-loss, at the temperature that suits them best.

    Parameters
    ----------
    codes : int array of shape (n_samples,)
        Column of the right class.
    weight : array of shape (n_samples,)
        How much a row counts.
    """

    codes: NDArray[np.int64]
    weight: NDArray[np.float64]

    def verdict(self, scores: NDArray[np.floating], temperature: float | None = None) -> Verdict:
        """Judge scores of shape (n_samples, n_classes)."""
        if temperature is None:
            temperature = best_temperature(scores, self.codes, self.weight)
        own = softmax(scores / temperature)[np.arange(len(scores)), self.codes]
        losses = -np.log(np.clip(own, _TINY, 1))
        return Verdict(losses, mean_of(losses, self.weight), temperature)

    def figures(self, verdict: Verdict, scores: NDArray[np.floating]) -> dict[str, float | None]:
        """Give accuracy and log-loss as they stand in a table."""
        right = scores.argmax(axis=1) == self.codes
        accuracy = _known(mean_of(right, self.weight))
        return {"accuracy": accuracy} | _loss("log_loss", verdict, self.weight)

    def subset(self, rows: NDArray[np.int64]) -> ClassJudge:
        """Judge these rows."""
        return ClassJudge(self.codes[rows], self.weight[rows])


@dataclass(frozen=True, eq=False)
class NumberJudge:
    """Judges predicted numbers by their squared error.

    Parameters
    ----------
    truth : array of shape (n_samples, n_outputs)
    weight : array of shape (n_samples,)
    """

    truth: NDArray[np.float64]
    weight: NDArray[np.float64]

    def verdict(self, scores: NDArray[np.floating], temperature: float | None = None) -> Verdict:
        """Judge predictions of shape (n_samples, n_outputs); numbers have no temperature."""
        losses = ((scores - self.truth) ** 2).mean(axis=1)
        return Verdict(losses, mean_of(losses, self.weight))

    def figures(self, verdict: Verdict, scores: NDArray[np.floating]) -> dict[str, float | None]:
        """Give R squared and squared error as they stand in a table."""
        centre = np.average(self.truth, axis=0, weights=self.weight)
        spread = mean_of(((self.truth - centre) ** 2).mean(axis=1), self.weight)
        r2 = 1 - verdict.loss / spread if spread else None
        return {"r2": r2} | _loss("mse", verdict, self.weight)

    def subset(self, rows: NDArray[np.int64]) -> NumberJudge:
        """Judge these rows."""
        return NumberJudge(self.truth[rows], self.weight[rows])


Judge = ClassJudge | NumberJudge


def mean_of(values: NDArray[Any], weight: NDArray[np.float64]) -> float:
    """Weighted mean; nan where nothing counts."""
    total = weight.sum()
    return float(weight @ values / total) if total > 0 else float("nan")


def error_of(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float | None:
    """Give the standard error of a weighted mean; None for fewer than two rows that count."""
    n = int(np.count_nonzero(weight))
    if n < 2:
        return None
    away = weight * (values - mean_of(values, weight)) / weight.sum()
    return float(np.sqrt(away @ away * n / (n - 1)))


def _loss(name: str, verdict: Verdict, weight: NDArray[np.float64]) -> dict[str, float | None]:
    return {name: _known(verdict.loss), f"{name}_se": error_of(verdict.losses, weight)}


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
