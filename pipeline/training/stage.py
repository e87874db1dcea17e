"""train(): stage 2, from cached layers to a model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.cache import EmbeddingStore
from pipeline.config import TrainOptions
from pipeline.heads import MOST_COMPONENTS, Problem
from pipeline.memory import shown_bytes
from pipeline.model import TransferModel, travelling_states
from pipeline.results import TargetResults
from pipeline.samples import Part
from pipeline.training.figures import measure, no_figures
from pipeline.training.labelled import Labelled, labelled_rows, refuse_sameness
from pipeline.training.learning import learn
from pipeline.training.memory import MemoryPlan, plan_memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pipeline.samples import Target

__all__ = ["train"]

_log = logging.getLogger(__name__)
_PARTS: tuple[Part, ...] = ("train", "val", "test")
_ROWS_AT_ONCE = 4096


def train(
    store: EmbeddingStore,
    options: TrainOptions | None = None,
    *,
    layers: str | Sequence[str] = "all",
    head: Any = None,
) -> TransferModel:
    """Fuse cached layers and train a head on them.

    The held-out rows are looked at once, after everything has been chosen.

    Parameters
    ----------
    store : EmbeddingStore
        A cache with labels.
    options : TrainOptions, optional
        Target, fusion, head, split, ...
    layers : str or sequence of str
        Which cached layers to use: ``"all"``, or names (joined by commas). They are taken
        bottom to top, whatever their order here.
    head : estimator, optional
        Any scikit-learn predictor, instead of the one that the options name.

    Returns
    -------
    TransferModel
        Its ``results`` hold the figures and everything that was compared.

    Raises
    ------
    InputError
        When there are no labels, or nothing to learn from them.
    UnknownNameError
        For a target, column, layer, fusion or head that does not exist.
    OptionError
        For a head that cannot predict this kind of target.
    BackboneError
        When weights came from a file that is gone or has changed: they travel in the model.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = ["owl", "elk"] * 30
    >>> X = rng.normal(size=(60, 4)) + (np.array(labels) == "owl")[:, None] * 4
    >>> store = EmbeddingStore.from_arrays(
    ...     {"mine/deep": X}, [f"{n}.jpg" for n in range(60)], {"label": labels})
    >>> model = train(store, TrainOptions(head="ridge"))
    >>> model.results["label"].figures["accuracy"]
    1.0
    """
    options = options or TrainOptions()
    labelled = labelled_rows(store, options)
    target, split = labelled.target, labelled.split
    _log.info("target %s", target.describe())
    chosen = _layers(store, layers)
    specs = {owner: store.specs[owner] for owner in _owners(chosen)}
    states = travelling_states(specs, store.weights)
    held = {part: _present(split.rows(store.ids, part), target) for part in _PARTS}
    train_rows = np.sort(np.concatenate([held["train"], held["val"]]))
    _say_split(labelled, len(train_rows), len(held["test"]))
    among = f"the {len(train_rows)} rows that are left to train on"
    refuse_sameness(target.subset(train_rows), among)
    width = sum(store.layers[name] for name in chosen)
    if options.head == "best":
        width = max(width, MOST_COMPONENTS)
    most_rows = len(train_rows) + (len(held["test"]) if options.refit else 0)
    plan = plan_memory(most_rows, width, max(len(target.classes), 1), options.memory)
    problem = _problem(store, chosen, labelled, train_rows, plan)
    learnt = learn(
        problem,
        fusion=options.fusion,
        head=options.head if head is None else head,
        class_weight=None if options.class_weight == "none" else options.class_weight,
        random_state=options.seed,
    )
    figures: Mapping[str, float | None] = no_figures(target.kind)
    if len(held["test"]):
        pieces = _pieces(store, list(learnt.best.layers), held["test"])
        figures = measure(learnt.pipeline, pieces, target.subset(held["test"]))
    pipeline, trained_on = learnt.pipeline, len(train_rows)
    if options.refit and len(held["test"]):
        every = np.sort(np.concatenate([train_rows, held["test"]]))
        pipeline = learnt.refit(_problem(store, chosen, labelled, every, plan))
        split, trained_on = split.trained_on_all(), len(every)
    results = TargetResults(
        kind=target.kind,
        figures=figures,
        n_train=trained_on,
        n_test=len(held["test"]),
        layers=learnt.best.layers,
        fusion=learnt.best.fusion,
        head=learnt.best.head,
        fusions=learnt.candidates,
    )
    owners = _owners(learnt.best.layers)
    weights = {owner: store.weights[owner] for owner in owners if owner in store.weights}
    return TransferModel(
        specs={owner: specs[owner] for owner in owners},
        layers={name: store.layers[name] for name in learnt.best.layers},
        heads={target.name: pipeline},
        results={target.name: results},
        split=split,
        weights={owner: source for owner, source in weights.items() if owner not in states},
        states={owner: states[owner] for owner in owners if owner in states},
    )


def _owners(layers: Sequence[str]) -> list[str]:
    """Name the backbones of some layers."""
    return list(dict.fromkeys(layer.rpartition("/")[0] for layer in layers))


def _layers(store: EmbeddingStore, request: str | Sequence[str]) -> list[str]:
    """Resolve the layers to use, bottom to top."""
    if request in ("auto", "all"):
        return list(store.layers)
    named = request.split(",") if isinstance(request, str) else list(request)
    _, slices = store.matrix([name.strip() for name in named], rows=slice(0, 0))
    return [name for name in store.layers if name in slices]


def _present(rows: NDArray[np.int64], target: Target) -> NDArray[np.int64]:
    return rows[target.present[rows]]


def _problem(
    store: EmbeddingStore,
    layers: list[str],
    labelled: Labelled,
    rows: NDArray[np.int64],
    plan: MemoryPlan,
) -> Problem:
    groups = labelled.groups
    _, slices = store.matrix(layers, rows=slice(0, 0))
    if not plan.in_memory:
        _log.info(
            "the rows are read in pieces: at once they would take more than %s",
            shown_bytes(plan.limit),
        )
    return Problem(
        store.matrix(layers, rows)[0] if plan.in_memory else None,
        slices,
        labelled.target.subset(rows),
        groups=None if groups is None else [groups[row] for row in rows],
        digests=[bytes(digest) for digest in store.inputs["digest"][rows]],
        pieces=None if plan.in_memory else partial(_pieces, store, layers, rows),
        most_rows=plan.most,
    )


def _pieces(
    store: EmbeddingStore, layers: list[str], rows: NDArray[np.int64]
) -> Iterator[NDArray[np.float32]]:
    """Read rows piece by piece, and let each go."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield store.matrix(layers, rows[start : start + _ROWS_AT_ONCE])[0]
        store.release()


def _say_split(labelled: Labelled, n_train: int, n_test: int) -> None:
    _log.info("training on %d rows, %d held out (seed %d)", n_train, n_test, labelled.split.seed)
    if n_test and labelled.split.untested:
        _log.info("too few rows to hold any out: %s", ", ".join(labelled.split.untested))
    if crossing := labelled.split.crossing:
        _log.info(
            "%d held-out rows have a copy, or a row of their group, among the training rows: "
            "the given split is kept as it is",
            crossing,
        )
