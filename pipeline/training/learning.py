"""From rows with labels to the fitted head that serves them best."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.heads import Problem, build, compare, fit_head
from pipeline.results import Candidate

__all__ = ["Learnt", "learn"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Learnt:
    """A fitted head and how it was found.

    Parameters
    ----------
    pipeline : Pipeline
        Fuser and head, fitted on the columns of ``best.layers``.
    candidates : tuple of Candidate
        Everything that was compared, best first.
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


def learn(
    problem: Problem,
    *,
    fusion: str = "auto",
    head: Any = "auto",
    class_weight: str | None = None,
    random_state: int = 0,
) -> Learnt:
    """Compare what was asked for by cross-validation, and fit the winner on all rows.

    Parameters
    ----------
    problem : Problem
        Training rows only.
    fusion, head, class_weight, random_state
        As for `pipeline.heads.compare`.
    """
    scored = compare(
        problem, fusion=fusion, head=head, class_weight=class_weight, random_state=random_state
    )
    best, asked = scored[0]
    candidates = tuple(candidate for candidate, _ in scored)
    _log.info("%s", _reason(candidates))
    refit = partial(_fit, best, asked, class_weight, random_state)
    return Learnt(refit(problem), candidates, refit)


def _fit(
    best: Candidate, asked: Any, class_weight: str | None, random_state: int, problem: Problem
) -> Any:
    own = problem.restricted(best.layers)
    pipeline = build(best.fusion, asked, own, class_weight=class_weight, random_state=random_state)
    return fit_head(pipeline, own)


def _reason(candidates: tuple[Candidate, ...]) -> str:
    """Say what was chosen and why."""
    first, rest = candidates[0], candidates[1:]
    if not rest:
        return f"{_named(first)}: {_scored(first)}"
    others = "; ".join(f"{_named(other)} {_scored(other)}" for other in rest)
    return f"chose {_named(first)} by cross-validation: {_scored(first)} (others: {others})"


def _named(candidate: Candidate) -> str:
    return f"{candidate.fusion} + {candidate.head}"


def _scored(candidate: Candidate) -> str:
    names = ("accuracy", "r2", "log_loss", "mse")
    known = {name: value for name in names if (value := candidate.score.get(name)) is not None}
    said = (f"{name.replace('_', '-')} {value:.3g}" for name, value in known.items())
    return ", ".join(said) or "too few rows to compare"
