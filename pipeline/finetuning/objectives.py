"""Objective: one target as a network is trained on it: goals, losses, and which rows count.

Losses are normalised so that always saying the mean costs 1: cross-entropy over the logarithm
of the number of classes, squared error over the variance. Rows without a label weigh nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.heads import Folded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.samples import Target

__all__ = ["Objective"]


@dataclass(frozen=True, eq=False)
class Objective:
    """One target.

    Parameters
    ----------
    name : str
    kind : {"class", "multilabel", "number"}
    goal : Tensor of shape (n_samples,), or (n_samples, n_labels)
        Positions of classes, numbers of mean 0 and variance 1, or 0 and 1.
    weight : float32 Tensor of shape (n_samples,)
        0 for a row without a label.
    norm : float
        What losses are divided by.
    mean, spread : float
        Of the numbers.
    """

    name: str
    kind: str
    goal: Tensor
    weight: Tensor
    norm: float
    mean: float = 0.0
    spread: float = 1.0

    @classmethod
    def of(
        cls, target: Target, head: Folded, train: NDArray[np.int64], class_weight: Any = None
    ) -> Objective:
        """Read a target as a head has learnt it.

        Parameters
        ----------
        target : Target
            Of all rows.
        head : Folded
            Its classes are the outputs.
        train : int array
            Rows that may be looked at for means and sizes.
        class_weight : {"balanced", None}
        """
        present = target.present
        weight = present.astype(np.float32)
        if target.kind == "number":
            known = target.values[train][present[train]]
            mean, spread = float(known.mean()), float(known.std()) or 1.0
            goal = np.where(present, (target.values - mean) / spread, 0.0)
            return cls(
                target.name, "number", torch.tensor(goal, dtype=torch.float32),
                torch.from_numpy(weight), 1.0, mean, spread,
            )  # fmt: skip
        classes = [str(label) for label in ([] if head.classes is None else head.classes)]
        places = {label: place for place, label in enumerate(classes)}
        if target.kind == "multilabel":
            table = np.zeros((len(target), len(classes)), np.float32)
            for label, has in zip(target.classes, target.indicator().T, strict=True):
                if str(label) in places:  # one that the head does not know stands in no row here
                    table[:, places[str(label)]] = has
            return cls(
                target.name, "multilabel", torch.from_numpy(table), torch.from_numpy(weight),
                float(np.log(2)),
            )  # fmt: skip
        codes = np.array([places[str(v)] if v is not None else 0 for v in target.values], np.int64)
        if class_weight == "balanced":
            sizes = np.bincount(codes[train][present[train]], minlength=len(classes))
            weight *= (sizes.sum() / (len(classes) * np.maximum(sizes, 1)))[codes]
        return cls(
            target.name, "class", torch.from_numpy(codes), torch.from_numpy(weight),
            float(np.log(len(classes))),
        )  # fmt: skip

    def labelled(self, rows: NDArray[np.int64]) -> int:
        """Count the rows that have a label."""
        return int((self.weight[torch.from_numpy(rows)] > 0).sum())

    def scaled(self, scores: NDArray[np.float64]) -> Tensor:
        """Give the scores of a head as those of a network: numbers of mean 0 and variance 1."""
        return torch.from_numpy((scores - self.mean) / self.spread)

    def losses(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Give the normalised loss of each row; those of rows without a label mean nothing.

        Parameters
        ----------
        scores : Tensor of shape (batch, n_outputs)
            Logits, or numbers of mean 0 and variance 1.
        rows : int64 Tensor of shape (batch,)
        """
        goal = self.goal[rows].to(scores.device)
        if self.kind == "class":
            own = functional.cross_entropy(scores, goal, reduction="none")
        elif self.kind == "number":
            own = (scores[:, 0] - goal) ** 2
        else:
            each = functional.binary_cross_entropy_with_logits(scores, goal, reduction="none")
            own = each.mean(dim=1)
        return own / self.norm

    def right(self, scores: Tensor, rows: Tensor) -> float:
        """Share of right answers, or of the variance explained, among rows with a label."""
        present = self.weight[rows] > 0
        goal, scores = self.goal[rows][present], scores.cpu()[present]
        if self.kind == "class":
            return float((scores.argmax(dim=1) == goal).float().mean())
        if self.kind == "number":
            rest = ((scores[:, 0] - goal) ** 2).mean()
            return float(1 - rest / goal.var(correction=0).clamp(min=1e-12))
        return float(((scores > 0) == (goal > 0.5)).float().mean())
