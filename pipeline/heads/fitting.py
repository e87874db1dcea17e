"""Fitting: from what was asked for, a fusion and a head, to a fitted pipeline and its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import OptionError, UnknownNameError
from pipeline.fusion import FUSERS, find_layer
from pipeline.heads.catalog import make_head
from pipeline.heads.fused import FUSIONS
from pipeline.heads.problem import Problem
from pipeline.heads.search import search_passes
from pipeline.results import Candidate

__all__ = [
    "FUSING",
    "check_choice",
    "fit_fusing",
    "fit_ridge",
    "is_ridge",
    "makeable",
    "resolved_head",
    "widened",
]

FUSING = ("layer_ridge", "best")
"""Heads that fuse the layers themselves."""

AUTO_HEADS = {"class": "ridge", "number": "ridge", "multilabel": "logistic"}


def resolved_head(head: Any, kind: str) -> Any:
    """Say what ``auto`` is for a kind of target."""
    return AUTO_HEADS[kind] if isinstance(head, str) and head == "auto" else head


def is_ridge(head: Any, kind: str) -> bool:
    """Whether the search over fusions gives the head itself, and not only the fusion."""
    return isinstance(head, str) and head == "ridge" and kind != "multilabel"


def makeable(layers: Sequence[str]) -> list[str]:
    """Name the fusions that a fuser can make for any head; of one layer, that layer."""
    *lower, _ = layers
    if not lower:
        return ["last"]
    return ["last", *(f"single:{name}" for name in lower), *list(FUSERS)[1:]]


def check_choice(fusion: str, head: Any, kind: str, layers: Sequence[str]) -> None:
    """Refuse a fusion that does not exist, or does not go with the head.

    Parameters
    ----------
    fusion : str
    head : str or estimator
    kind : {"class", "multilabel", "number"}
    layers : sequence of str
        Layers that there will be.

    Raises
    ------
    UnknownNameError
        For a fusion or a layer that does not exist.
    OptionError
        For a head that fuses by itself, or a fusion that only ridge can make.
    """
    name, _, layer = fusion.partition(":")
    if name == "single" and layer:
        find_layer(layer, layers)
    elif fusion not in ("auto", *FUSIONS) or fusion == "single":
        accepted = ["auto", *(one for one in FUSIONS if one != "single"), "single:LAYER"]
        raise UnknownNameError("fusion", fusion, accepted)
    fuses = isinstance(head, str) and head in FUSING
    if fuses and kind == "multilabel":
        raise OptionError(
            f"head {head} predicts one class or number a row, but the target has several labels. "
            "Take another head: logistic."
        )
    if fusion == "auto":
        return
    if fuses:
        raise OptionError(
            f"head {head} fuses the layers itself, but fusion is {fusion}. Leave the fusion out, "
            "or take another head: ridge."
        )
    if name != "single" and name not in FUSERS and not is_ridge(resolved_head(head, kind), kind):
        resolved = resolved_head(head, kind)
        shown = resolved if isinstance(resolved, str) else type(resolved).__name__
        others = f"{', '.join(FUSERS)} or single:LAYER"
        if kind == "multilabel":
            raise OptionError(
                f"fusion {fusion} is found by a ridge that predicts one class or number a row, but "
                f"the target has several labels. Take another fusion: {others}."
            )
        raise OptionError(
            f"fusion {fusion} is found by ridge and made for it, but the head is {shown}. Take "
            f"head ridge, or another fusion: {others}."
        )


def fit_ridge(
    problem: Problem,
    fusions: str | Sequence[str] | None,
    *,
    class_weight: str | None,
    random_state: int,
    layers: Sequence[str] | None = None,
) -> tuple[Any, list[Candidate]]:
    """Search for the fusion that serves a ridge best.

    Parameters
    ----------
    problem : Problem
    fusions : str, sequence of str, or None
        Try these; all when None.
    class_weight : {"balanced", None}
    random_state : int
    layers : sequence of str, optional
        Columns that the fitted pipeline shall take; those of the winner when not given.

    Returns
    -------
    pipeline : Pipeline
        Of the one step that fuses and predicts.
    candidates : list of Candidate

    Raises
    ------
    OptionError
        For a class weight where the target is a number.
    """
    several = problem.target.kind == "multilabel"
    if problem.target.kind == "number":
        make_head("ridge", "number", class_weight=class_weight)  # refuses what does not apply
    winner, table = search_passes(
        problem.passes,
        problem.y.astype(float) if several else problem.y,
        problem.layer_slices,
        problem.n_features,
        problem.leave_together(),
        problem.sample_weight,
        is_class=problem.target.kind == "class",
        fusions=[fusions] if isinstance(fusions, str) else fusions,
        class_weight=None if several else class_weight,
        random_state=random_state,
        most=problem.most_rows,
        everywhere=False,
        sharing=problem.sharing,
    )
    found = [Candidate.from_json({"head": "ridge"} | row) for row in table]
    return _alone(winner.narrowed(list(layers or found[0].layers))), found


def fit_fusing(
    problem: Problem, head: str, *, class_weight: str | None, random_state: int
) -> tuple[Any, list[Candidate]]:
    """Fit a head that fuses all layers itself; as for `fit_ridge`."""
    own = make_head(
        head, problem.target.kind, class_weight=class_weight, random_state=random_state
    ).set_params(layer_slices=dict(problem.layer_slices))
    own.n_features_in_ = problem.n_features
    few = {} if head == "best" else {"everywhere": False}
    own.fit_passes(
        problem.passes,
        problem.y,
        problem.sample_weight,
        problem.leave_together(),
        most=problem.most_rows,
        **few,
    )
    layers = list(problem.layer_slices)
    found = Candidate(own.fusion_, head, tuple(layers), own.scored_by_, own.loo_figures_)
    return _alone(own.narrowed(layers)), [found]


def widened(pipeline: Any, layer_slices: Mapping[str, slice]) -> Any:
    """Give a copy of a fitted pipeline that finds its layers among those of a wider ``X``.

    Parameters
    ----------
    pipeline : Pipeline
        Of a fuser and a head, or of a layer ridge.
    layer_slices : dict of str to slice
        Columns of every layer of the wider ``X``.
    """
    from sklearn.pipeline import Pipeline

    (name, first), *rest = pipeline.steps
    return Pipeline([(name, first.widened(layer_slices)), *rest])


def _alone(head: Any) -> Any:
    from sklearn.pipeline import Pipeline

    return Pipeline([("head", head)])
