"""Start: the frozen model that a tuning begins with, fitted without the validation rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.finetuning.judging import Judge
from pipeline.finetuning.objectives import Objective
from pipeline.finetuning.rows import TuningRows
from pipeline.heads import Folded, Problem, folded
from pipeline.model import TransferModel
from pipeline.training import class_weight_of, relearn

__all__ = ["Start"]

_log = logging.getLogger(__name__)

_MIRRORED_LOSS = 1.5
"""Mirror images keep their labels where the frozen model loses at most so many times as much."""


@dataclass(frozen=True, eq=False)
class Start:
    """Heads that have not seen the validation rows, and what these rows say of them.

    Parameters
    ----------
    heads : dict of str to Folded
        By task, of the raw columns.
    objectives : list of Objective
    judge : Judge
    scores : list of Tensor
        Of the validation rows, as a `TunableNetwork` gives them.
    offset, scale : float64 arrays of shape (n_features,)
        Means, and one factor a layer that gives its features variance 1 on average.
    """

    heads: Mapping[str, Folded]
    objectives: list[Objective]
    judge: Judge
    scores: list[Tensor]
    offset: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, model: TransferModel, rows: TuningRows, X: NDArray[np.float32], seed: int) -> Start:
        """Fit the heads of a model on the rows that are left.

        Parameters
        ----------
        model : TransferModel
        rows : TuningRows
        X : float32 array of shape (n_samples, n_features)
            The layers of all rows.
        seed : int
        """
        heads = {name: _refitted(model, name, rows, X, seed) for name in model.heads}
        objectives = [
            Objective.of(rows.targets[name], head, rows.train, class_weight_of(model.heads[name]))
            for name, head in heads.items()
        ]
        return cls(
            heads,
            objectives,
            Judge(objectives, torch.from_numpy(rows.validation)),
            _scores(heads, objectives, X[rows.validation]),
            *_scaling(X[rows.train], list(model.layers.values())),
        )

    def losses(self) -> NDArray[np.float64]:
        """Give the losses of the validation rows."""
        return self.judge.losses(self.scores)

    def mirrors(self, X: NDArray[np.float32]) -> bool:
        """Whether mirror images keep their labels.

        Parameters
        ----------
        X : float32 array of shape (n_validation, n_features)
            The layers of the validation rows, mirrored.
        """
        mirrored = self.judge.losses(_scores(self.heads, self.objectives, X)).sum()
        plain = self.losses().sum()
        allowed = bool(mirrored <= _MIRRORED_LOSS * plain)
        _log.info(
            "the loss of mirror images is %.3f instead of %.3f: views are %s",
            mirrored, plain, "mirrored too" if allowed else "not mirrored",
        )  # fmt: skip
        return allowed


def _refitted(
    model: TransferModel, name: str, rows: TuningRows, X: NDArray[np.float32], seed: int
) -> Folded:
    target = rows.targets[name]
    own = rows.train[target.present[rows.train]]
    ends = np.cumsum(list(model.layers.values())).tolist()
    groups = rows.groups()
    problem = Problem(
        X[own],
        dict(zip(model.layers, map(slice, [0, *ends], ends), strict=False)),
        target.subset(own),
        groups=None if groups is None else [groups[row] for row in own],
        digests=[rows.digests[row] for row in own],
    )
    results = model.results[name]
    head = relearn(model.heads[name], results.fusions[0], problem, seed)
    return folded(head, results.kind, X.shape[1])


def _scores(
    heads: Mapping[str, Folded], objectives: list[Objective], X: NDArray[np.float32]
) -> list[Tensor]:
    return [
        torch.from_numpy((head.scores(X) - objective.mean) / objective.spread)
        for head, objective in zip(heads.values(), objectives, strict=True)
    ]


def _scaling(
    X: NDArray[np.float32], widths: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    offset, scale, start = X.mean(axis=0, dtype=np.float64), np.ones(X.shape[1]), 0
    for width in widths:
        own = slice(start, start + width)
        spread = float(X[:, own].var(axis=0, dtype=np.float64).mean()) ** 0.5
        scale[own] = 1 / (spread or 1.0)
        start += width
    return offset, scale
