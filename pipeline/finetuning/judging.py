"""Judging: what scores of the validation rows are worth, over all tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

from pipeline.finetuning.objectives import Objective
from pipeline.heads import best_temperature

__all__ = ["Chosen", "Judge", "choose_weights"]

_CHANCE = 0.025
"""How often a network that is no better may pass for better. One standard error, the usual rule,
lets one in six through, and with ten images a class that happened."""


@dataclass(frozen=True, eq=False)
class Judge:
    """The validation rows, and how much each counts for each objective.

    Parameters
    ----------
    objectives : sequence of Objective
    rows : int64 Tensor of shape (n_validation,)
    families : int array of shape (n_validation,)
        Numbers from 0; rows of one say together what one row of its own does.
    """

    objectives: Sequence[Objective]
    rows: Tensor
    families: NDArray[np.int64]

    def losses(self, scores: Sequence[Tensor]) -> NDArray[np.float64]:
        """Give what each row adds to the mean normalised loss of the objectives.

        A class gets a temperature where that lowers the loss. It is the one that suits the other
        half of the rows best: no row helps to judge itself.

        Parameters
        ----------
        scores : sequence of Tensors of shape (n_validation, n_outputs)
            One an objective.
        """
        pairs = zip(self.objectives, scores, strict=True)
        parts = [min(self._plain_and_softened(*pair), key=np.sum) for pair in pairs]
        return np.asarray(np.mean(parts, axis=0), np.float64)

    def temperature(self, objective: Objective, scores: Tensor) -> float:
        """Find the temperature of the lowest log-loss; 1 where none lowers it, or for no class."""
        plain, softened = map(np.sum, self._plain_and_softened(objective, scores))
        return self._best(objective, scores, slice(None)) if softened < plain else 1.0

    def _plain_and_softened(
        self, objective: Objective, scores: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the shares of the rows in the loss of an objective, as its scores are and softened.

        Each half of the rows is softened by what suits the other.
        """
        halves = (slice(0, None, 2), slice(1, None, 2))
        softened = torch.empty_like(scores, dtype=torch.float64)
        for own, other in (halves, halves[::-1]):
            softened[own] = scores[own] / self._best(objective, scores[other], other)
        weight = objective.weight[self.rows].double()
        share = weight / weight.sum()
        plain, softened = (
            objective.losses(own.double(), self.rows) * share for own in (scores, softened)
        )
        return plain.numpy(), softened.numpy()

    def _best(self, objective: Objective, scores: Tensor, part: slice) -> float:
        rows = self.rows[part]
        if objective.kind != "class" or not objective.weight[rows].any():
            return 1.0
        weight = objective.weight[rows].numpy()
        return best_temperature(scores.double().numpy(), objective.goal[rows].numpy(), weight)

    def accuracy(self, scores: Sequence[Tensor]) -> float:
        """Mean over the tasks of the share of right answers, or of the variance explained."""
        return float(
            np.mean([t.right(s, self.rows) for t, s in zip(self.objectives, scores, strict=True)])
        )

    def figures(self, scores: Sequence[Tensor]) -> dict[str, dict[str, float | None]]:
        """Give accuracy and log-loss, softened as for `losses`, or R squared and squared error.

        Numbers are in their own unit; the error is the standard error of the loss.
        """
        found = {}
        for objective, own in zip(self.objectives, scores, strict=True):
            right, loss = ("r2", "mse") if objective.kind == "number" else ("accuracy", "log_loss")
            present = (objective.weight[self.rows] > 0).numpy()
            weight = objective.weight[self.rows].numpy()[present]
            shares = min(self._plain_and_softened(objective, own), key=np.sum)[present]
            losses = shares * weight.sum() / weight * objective.norm * objective.spread**2
            error = float(losses.std(ddof=1) / len(losses) ** 0.5) if len(losses) > 1 else None
            found[objective.name] = {
                right: objective.right(own, self.rows),
                loss: float(losses.mean()),
                f"{loss}_se": error,
            }
        return found

    def better(self, before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
        """Whether losses fell by more than chance would have it, by a paired t-test."""
        gains = np.bincount(self.families, before - after)
        if len(gains) < 2:
            return False
        needed = float(stdtrit(len(gains) - 1, 1 - _CHANCE))
        return bool(gains.sum() > needed * np.sqrt(len(gains)) * gains.std(ddof=1))


@dataclass(frozen=True, eq=False)
class Chosen:
    """Weights between the frozen and the tuned ones.

    Parameters
    ----------
    share : float
        Of the tuned weights.
    state : mapping of str to Tensor
    scores : list of Tensor
        Of the validation rows, one a objective.
    """

    share: float
    state: Mapping[str, Tensor]
    scores: list[Tensor]


def choose_weights(
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    scores_of: Callable[[Mapping[str, Tensor]], list[Tensor]],
    judge: Judge,
) -> Chosen:
    """Interpolate between frozen and tuned weights, where the validation rows lose least.

    WiSE-FT: Wortsman et al. (2022), arXiv 2109.01903.

    Parameters
    ----------
    start, end : mappings of str to Tensor
    scores_of : callable
        Gives the scores of the validation rows by a network with these weights.
    judge : Judge
    """
    return min(
        (_between(start, end, step / 10, scores_of) for step in range(10, 0, -1)),
        key=lambda found: judge.losses(found.scores).sum(),
    )


def _between(
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    share: float,
    scores_of: Callable[[Mapping[str, Tensor]], list[Tensor]],
) -> Chosen:
    state = {name: torch.lerp(start[name], end[name], share) for name in end}
    return Chosen(share, state, scores_of(state))
