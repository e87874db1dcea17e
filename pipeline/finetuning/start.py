"""Start: the frozen model that a tuning begins with, and what it is up against."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.finetuning.judging import Judge
from pipeline.finetuning.objectives import Objective
from pipeline.finetuning.rows import TuningRows
from pipeline.fusion import slices_of
from pipeline.heads import Folded, Problem, folded
from pipeline.model import TransferModel
from pipeline.samples import folds
from pipeline.training import class_weight_of, relearn

__all__ = ["Start"]

_log = logging.getLogger(__name__)

_MIRRORED_LOSS = 1.5
"""Mirror images keep their labels where the frozen model loses at most so many times as much."""
_MOST_FOLDS = 5
"""Of the validation rows: heads fitted on all other rows are those of the whole model, nearly."""


@dataclass(frozen=True, eq=False)
class Start:
    """Heads that have not seen the validation rows, and what these rows say of the frozen model.

    Parameters
    ----------
    heads : dict of str to Folded
        By task, of the raw columns; fitted without the validation rows.
    objectives : list of Objective
    judge : Judge
    scores : dict of str to float64 array of shape (n_validation, n_outputs)
        Of the validation rows by these heads.
    rival : dict of str to float64 array of shape (n_validation, n_outputs)
        The same by heads fitted on all rows but a part of the validation rows, to which the row
        belongs: a fifth, or more where classes are small. So good is the model that came in,
        which has learnt from all of them.
    offset, scale : float64 arrays of shape (n_features,)
        Means, and one factor a layer that gives its features variance 1 on average.
    """

    heads: Mapping[str, Folded]
    objectives: list[Objective]
    judge: Judge
    scores: Mapping[str, NDArray[np.float64]]
    rival: Mapping[str, NDArray[np.float64]]
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
        fits = _Fits(model, rows, X, seed)
        heads = {name: fits.head(name, rows.train) for name in model.heads}
        objectives = [
            Objective.of(rows.targets[name], head, rows.train, class_weight_of(model.heads[name]))
            for name, head in heads.items()
        ]
        scores = {name: head.scores(X[rows.validation]) for name, head in heads.items()}
        return cls(
            heads,
            objectives,
            Judge(objectives, torch.from_numpy(rows.validation), fits.families()),
            scores,
            {name: fits.crossed(name, own) for name, own in scores.items()},
            *_scaling(X[rows.train], slices_of(model.layers)),
        )

    def losses(self, scores: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Give the losses of the validation rows.

        Parameters
        ----------
        scores : dict of str to float64 array of shape (n_validation, n_outputs)
            By task, in its own unit.
        """
        pairs = zip(self.objectives, scores.values(), strict=True)
        return self.judge.losses([objective.scaled(own) for objective, own in pairs])

    def mirrors(self, X: NDArray[np.float32]) -> bool:
        """Whether mirror images keep their labels.

        Parameters
        ----------
        X : float32 array of shape (n_validation, n_features)
            The layers of the validation rows, mirrored.
        """
        mirrored = self.losses({name: own.scores(X) for name, own in self.heads.items()}).sum()
        plain = self.losses(self.scores).sum()
        allowed = bool(mirrored <= _MIRRORED_LOSS * plain)
        _log.info(
            "the loss of mirror images is %.3f instead of %.3f: views are %s",
            mirrored, plain, "mirrored too" if allowed else "not mirrored",
        )  # fmt: skip
        return allowed


@dataclass(frozen=True, eq=False)
class _Fits:
    """The heads of a model, fitted anew on some of its rows."""

    model: TransferModel
    rows: TuningRows
    X: NDArray[np.float32]
    seed: int

    def head(self, name: str, own: NDArray[np.int64]) -> Folded:
        """Fit the kind of head that the model has on those of some rows that have a label.

        A head that was tuned before has not learnt from the validation rows, which are those of
        then: it is taken as it is.
        """
        target, results = self.rows.targets[name], self.model.results[name]
        if results.fusions[0].by == "validation":
            return folded(self.model.heads[name], results.kind, self.X.shape[1])
        problem = self.problem(name, own[target.present[own]])
        head = relearn(self.model.heads[name], results.fusions[0], problem, self.seed)
        return folded(head, results.kind, self.X.shape[1])

    def problem(self, name: str, own: NDArray[np.int64]) -> Problem:
        slices = slices_of(self.model.layers)
        target, digests = self.rows.targets[name], self.rows.digests
        return Problem(self.X, slices, target, self.rows.groups(), digests).subset(own)

    def families(self) -> NDArray[np.int64]:
        """Give the family of each validation row: of one group, or of equal content."""
        validation = self.rows.validation
        found = self.problem(next(iter(self.model.heads)), validation).families
        return np.arange(len(validation)) if found is None else np.array(found)

    def crossed(self, name: str, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score each validation row by a head that has seen all rows but its fold of them.

        Folds hold as many of one class as of another, like all rows: a head that lacks some of
        the very class that it is asked about would look worse than the model that came in.

        Parameters
        ----------
        name : str
            Of the task.
        scores : float64 array of shape (n_validation, n_outputs)
            By the head that has seen no validation row. They stand where a class has one row,
            and where there is no label.
        """
        train, validation = self.rows.train, self.rows.validation
        asked_about = self.problem(name, validation)
        target = asked_about.target
        each = int(target.present.sum()) // max(len(target.classes), 1)
        dealt = folds(
            target,
            min(max(each, 2), _MOST_FOLDS),
            seed=self.seed,
            groups=asked_about.groups,
            digests=asked_about.digests,
        )
        found = scores.copy()
        for others, asked in dealt:
            head = self.head(name, np.sort(np.r_[train, validation[others]]))
            found[asked] = head.scores(asked_about.matrix[asked])
        return found


def _scaling(
    X: NDArray[np.float32], slices: Mapping[str, slice]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    offset, scale = X.mean(axis=0, dtype=np.float64), np.ones(X.shape[1])
    for own in slices.values():
        spread = float(X[:, own].var(axis=0, dtype=np.float64).mean()) ** 0.5
        scale[own] = 1 / (spread or 1.0)
    return offset, scale
