"""Search: which fusion and head serve a target best, by cross-validation on its training rows.

``auto`` compares a small, stated set: for fusion the last layer alone, the average of all
layers, and all of them side by side; its head is `ridge` (`logistic` for several labels). The
lowest mean loss of the out-of-fold predictions wins.
"""

from __future__ import annotations

import math
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

__all__ = ["AUTO_FUSIONS", "AUTO_HEADS", "build", "compare", "fit_head"]

AUTO_FUSIONS = ("last", "average", "concat")
AUTO_HEADS = {"class": "ridge", "number": "ridge", "multilabel": "logistic"}

_FOLDS = 3
_MOST_ROWS = 6_000
"""Rows that candidates are compared on; more would tell them apart no better."""


def candidate_names(kind: str, fusion: str, head: Any, n_layers: int) -> list[tuple[str, Any]]:
    """Pair every fusion that is to be compared with the head."""
    fusions = AUTO_FUSIONS if fusion == "auto" else (fusion,)
    if fusion == "auto" and n_layers == 1:
        fusions = ("concat",)
    chosen = AUTO_HEADS[kind] if isinstance(head, str) and head == "auto" else head
    return [(one, chosen) for one in fusions]


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
    fused = fuser.fit_transform(problem.X, problem.y)
    with few_rows_a_class():
        head.fit(fused, problem.y, **given)
    return pipeline


def compare(
    problem: Problem,
    *,
    fusion: str = "auto",
    head: Any = "auto",
    class_weight: str | None = None,
    random_state: int = 0,
) -> list[tuple[Candidate, Any]]:
    """Score every candidate on out-of-fold predictions of the rows given, best first.

    Parameters
    ----------
    problem : Problem
        Training rows only; of more than 6,000 a random part is looked at, with two rows of
        every class that has them.
    fusion : str
        ``"auto"`` or one of the fusions.
    head : str or estimator
        ``"auto"``, a key of `HEADS`, or any scikit-learn estimator.
    class_weight : {"balanced", None}
    random_state : int

    Returns
    -------
    list of (Candidate, head)
        The head as it was asked for beside its score.
    """
    part = _part(problem, random_state)
    splits = folds(part.target, _FOLDS, seed=random_state, groups=part.groups, digests=part.digests)
    scored = []
    for one, other in candidate_names(problem.target.kind, fusion, head, len(problem.layer_slices)):
        began = time.perf_counter()
        used = layers_used(one, list(problem.layer_slices))
        fitted = part.restricted(used)
        make = partial(
            build, one, other, fitted, class_weight=class_weight, random_state=random_state
        )
        score = _score(make, fitted, splits)
        name = other if isinstance(other, str) else type(other).__name__
        seconds = time.perf_counter() - began
        scored.append((Candidate(one, name, tuple(used), "cv", score, seconds), other))
    return sorted(scored, key=lambda pair: _loss(pair[0]))


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


def _loss(candidate: Candidate) -> float:
    loss = candidate.score.get("log_loss", candidate.score.get("mse"))
    return math.inf if loss is None else loss


def _score(
    make: Callable[[], Any], problem: Problem, splits: Sequence[tuple[Any, Any]]
) -> dict[str, float | None]:
    """Predict every fold from the others, and score all predictions together."""
    if not splits:
        return no_score(problem.target.kind)
    outputs, rows = [], []
    for train, test in splits:
        fitted = fit_head(make(), problem.subset(train))
        outputs.append(predictions_of(fitted, problem.X[test], problem.target))
        rows.append(test)
    output, truth = np.concatenate(outputs), problem.target.subset(np.concatenate(rows))
    return score_of(truth, output)
