"""From rows with labels to the fitted head that serves them best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sklearn.base import clone

from pipeline.heads import (
    FUSING,
    HEADS,
    Problem,
    build,
    check_choice,
    cross_validated,
    fit_fusing,
    fit_head,
    fit_ridge,
    is_ridge,
    makeable,
    resolved_head,
    widened,
)
from pipeline.results import Candidate

__all__ = ["Learnt", "class_weight_of", "learn", "relearn"]

_CALLED = {"cv": "cross-validation", "loo": "leave-one-out"}


@dataclass(frozen=True, eq=False)
class Learnt:
    """A fitted head and how it was found.

    Parameters
    ----------
    pipeline : Pipeline
        Fuser and head, or a head that fuses; fitted on the columns of ``best.layers``.
    candidates : tuple of Candidate
        Everything that was compared, the winner first.
    refit : callable
        Fits the winner on another `Problem` with the same layers.
    """

    pipeline: Any
    candidates: tuple[Candidate, ...]
    refit: Callable[[Problem], Any]

    @property
    def best(self) -> Candidate:
        """The candidate that won."""
        return self.candidates[0]

    def reason(self) -> str:
        """Say what was chosen and why."""
        return _reason(self.candidates)


def learn(
    problem: Problem,
    *,
    fusion: str = "auto",
    head: Any = "auto",
    class_weight: str | None = None,
    random_state: int = 0,
) -> Learnt:
    """Find the fusion that serves best, and fit the head on all rows.

    A ridge is searched for among all fusions by the rows left out; another head takes the best
    fusion that a fuser can make, and is scored by cross-validation.

    Parameters
    ----------
    problem : Problem
        Training rows only.
    fusion : str
        ``"auto"`` or one of the fusions.
    head : str or estimator
        ``"auto"``, a key of `HEADS`, or any scikit-learn estimator.
    class_weight : {"balanced", None}
    random_state : int
    """
    check_choice(fusion, head, problem.target.kind, list(problem.layer_slices))
    head = resolved_head(head, problem.target.kind)
    shared: dict[str, Any] = {"class_weight": class_weight, "random_state": random_state}
    if is_ridge(head, problem.target.kind):
        fitted, found = fit_ridge(problem, None if fusion == "auto" else fusion, **shared)
        refit = partial(_refit_ridge, found[0], shared)
    elif isinstance(head, str) and head in FUSING:
        fitted, found = fit_fusing(problem, head, **shared)
        refit = partial(_refit_fusing, found[0], shared)
    else:
        searched: list[Candidate] = []
        if fusion == "auto":
            _, searched = fit_ridge(problem, makeable(list(problem.layer_slices)), **shared)
            fusion = searched[0].fusion
        scored = cross_validated(problem, fusion, head, **shared)
        found = [scored, *searched]
        refit = partial(_refit, scored, head, shared)
        fitted = refit(problem)
    return Learnt(fitted, tuple(found), refit)


def class_weight_of(head: Any) -> Any:
    """Find the weights of classes that a fitted head was made with, however deep it keeps them."""
    weights = (value for key, value in head.get_params().items() if key.endswith("class_weight"))
    return next((value for value in weights if value is not None), None)


def relearn(head: Any, best: Candidate, problem: Problem, random_state: int = 0) -> Any:
    """Fit the kind of head that a model has on other rows.

    Parameters
    ----------
    head : Pipeline
        Fitted, as it stands in a model.
    best : Candidate
        How it was found.
    problem : Problem
        The rows; its layers are those of the head, or more.
    random_state : int
    """
    shared = {"class_weight": class_weight_of(head), "random_state": random_state}
    if is_ridge(best.head, problem.target.kind):
        own = _refit_ridge(best, shared, problem)
    elif best.head in FUSING:
        own = _refit_fusing(best, shared, problem)
    else:
        kind = best.head if best.head in HEADS else clone(head[-1])
        own = _refit(best, kind, shared, problem)
    return widened(own, problem.layer_slices)


def _refit(best: Candidate, head: Any, shared: Mapping[str, Any], problem: Problem) -> Any:
    own = problem.restricted(best.layers)
    return fit_head(build(best.fusion, head, own, **shared), own)


def _refit_ridge(best: Candidate, shared: Mapping[str, Any], problem: Problem) -> Any:
    """Fit the fusion that won, without asking again which layers go forward."""
    own = problem.restricted(best.layers)
    kind = best.fusion.partition(":")[0]
    again = {"forward": "concat", "single": "last"}.get(kind, best.fusion)
    return fit_ridge(own, again, **shared, layers=best.layers)[0]


def _refit_fusing(best: Candidate, shared: Mapping[str, Any], problem: Problem) -> Any:
    return fit_fusing(problem.restricted(best.layers), best.head, **shared)[0]


def _reason(found: Sequence[Candidate]) -> str:
    first, tied = found[0], [one.fusion for one in found[1:] if one.tied]
    said = f"{first.fusion} + {first.head}: {_scored(first)}"
    if len(found) == 1:
        return said
    if next(iter(first.score.values())) is None:
        return f"chose {said}"
    same = f"; it cannot be told apart from {', '.join(tied)}" if first.tied and tied else ""
    return f"chose {said} by {_CALLED[first.by]}{same}"


def _scored(candidate: Candidate) -> str:
    names = ("accuracy", "r2", "log_loss", "mse")
    known = {name: value for name in names if (value := candidate.score.get(name)) is not None}
    said = (f"{name.replace('_', '-')} {value:.3g}" for name, value in known.items())
    return ", ".join(said) or "too few rows to compare"
