"""Cross-validation: a fusion and a head fitted and scored on the training rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.fusion import make_fuser
from pipeline.heads.catalog import make_head
from pipeline.heads.foreign import suited
from pipeline.heads.problem import Problem, layers_used
from pipeline.heads.scoring import no_score, predictions_of, score_of
from pipeline.results import Candidate, few_rows_a_class
from pipeline.samples import folds

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["build", "cross_validated", "fit_head"]

_FOLDS = 3
_MOST_ROWS = 6_000
"""Rows that are scored; more would say nothing else."""


def build(
    fusion: str, head: Any, problem: Problem, *, class_weight: str | None, random_state: int
) -> Any:
    """Give the unfitted pipeline of a fuser and a head."""
    from sklearn.pipeline import Pipeline

    fuser = make_fuser(fusion, layer_slices=dict(problem.layer_slices), random_state=random_state)
    kind = problem.target.kind
    labels = list(problem.target.classes) if kind == "multilabel" else None
    if hasattr(head, "fit"):
        head = suited(head, kind, class_weight=class_weight, random_state=random_state)
    predictor = make_head(
        head, kind, class_weight=class_weight, random_state=random_state, labels=labels
    )
    return Pipeline([("fusion", fuser), ("head", predictor)])


def fit_head(pipeline: Any, problem: Problem) -> Any:
    """Fit a pipeline; families and weights of rows reach the head.

    Raises
    ------
    OptionError
        When rows have weights, and the head cannot take any. (A head without ``groups`` deals
        no folds inside.)
    """
    from sklearn.utils.validation import has_fit_parameter

    from pipeline.heads.inner import no_weights

    extras = {"groups": problem.families, "sample_weight": problem.sample_weight}
    fuser, head = (step for _, step in pipeline.steps)
    if problem.sample_weight is not None and not has_fit_parameter(head, "sample_weight"):
        raise no_weights(head)
    given = {
        name: value
        for name, value in extras.items()
        if value is not None and has_fit_parameter(head, name)
    }
    # Step by step: a Pipeline would hand these on only as metadata routing happens to be set.
    fused = fuser.fit_transform(problem.matrix, problem.y)
    with few_rows_a_class():
        head.fit(fused, problem.y, **given)
    return pipeline


def cross_validated(
    problem: Problem, fusion: str, head: Any, *, class_weight: str | None, random_state: int
) -> Candidate:
    """Score a fusion and a head on out-of-fold predictions.

    Parameters
    ----------
    problem : Problem
        Training rows only; of more than 6,000 a random part is looked at, with two rows of
        every class that has them.
    fusion : str
        One that a fuser makes.
    head : str or estimator
        A key of `HEADS`, or any scikit-learn estimator.
    class_weight : {"balanced", None}
    random_state : int
    """
    began = time.perf_counter()
    used = layers_used(fusion, list(problem.layer_slices))
    part = _part(problem.restricted(used), random_state)
    splits = folds(part.target, _FOLDS, seed=random_state, groups=part.groups, digests=part.digests)
    make = partial(build, fusion, head, part, class_weight=class_weight, random_state=random_state)
    score = _score(make, part, splits)
    name = head if isinstance(head, str) else type(head).__name__
    return Candidate(fusion, name, tuple(used), "cv", score, time.perf_counter() - began)


def _part(problem: Problem, random_state: int) -> Problem:
    n_samples = len(problem.target)
    if n_samples <= _MOST_ROWS:
        return problem
    shuffled = np.random.default_rng(random_state).permutation(n_samples)
    if problem.target.kind == "class":
        shuffled = _pairs_first(shuffled, problem.target.encode()[shuffled])
    return problem.subset(np.sort(shuffled[:_MOST_ROWS]))


def _pairs_first(rows: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Put two rows of every class first, so that a part without the rest has all classes."""
    by_class = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[by_class], codes[by_class])
    rank = np.empty(len(rows), np.int64)
    rank[by_class] = np.arange(len(rows)) - starts
    return rows[np.argsort(rank >= 2, kind="stable")]


def _score(
    make: Callable[[], Any], problem: Problem, splits: Sequence[tuple[Any, Any]]
) -> dict[str, float | None]:
    """Predict every fold from the others, and score all predictions together."""
    if not splits:
        return no_score(problem.target.kind)
    outputs, rows = [], []
    for train, test in splits:
        fitted = fit_head(make(), problem.subset(train))
        outputs.append(predictions_of(fitted, problem.matrix[test], problem.target))
        rows.append(test)
    output, truth = np.concatenate(outputs), problem.target.subset(np.concatenate(rows))
    return score_of(truth, output)
