"""train(): stage 2, from cached layers to a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.cache import EmbeddingStore
from pipeline.config import TrainOptions
from pipeline.model import TransferModel, travelling_states
from pipeline.results import TargetResults
from pipeline.samples import Part
from pipeline.training.figures import measure, no_figures
from pipeline.training.labelled import Labelled, labelled_rows
from pipeline.training.learning import Learnt
from pipeline.training.rows import pieces_of, problems_of
from pipeline.training.tasks import (
    Task,
    learn_tasks,
    plan_tasks,
    refuse_fusions,
    refuse_heads,
    refuse_unlearnable,
    united,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.samples import Target

__all__ = ["train"]

_log = logging.getLogger(__name__)
_PARTS: tuple[Part, ...] = ("train", "val", "test")


def train(
    store: EmbeddingStore,
    options: TrainOptions | None = None,
    *,
    layers: str | Sequence[str] = "all",
    head: Any = None,
) -> TransferModel:
    """Fuse cached layers and train a head on them, one for each target.

    Every target is trained on the rows that have a label of it, as if it were the only one. The
    held-out rows, the same for all, are looked at once, after everything has been chosen.

    Parameters
    ----------
    store : EmbeddingStore
        A cache with labels.
    options : TrainOptions, optional
        Targets, fusion, head, split, ...
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
        For a head that cannot predict this kind of target (which one, if there are several).
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
    split, targets = labelled.split, labelled.targets
    for target in targets.values():
        _log.info("target %s", target.describe())
    chosen = _layers(store, layers)
    specs = {owner: store.specs[owner] for owner in _owners(chosen)}
    states = travelling_states(specs, store.weights)
    parts = {part: split.rows(store.ids, part) for part in _PARTS}
    training = np.sort(np.concatenate([parts["train"], parts["val"]]))
    tasks = {name: Task(one, _present(training, one)) for name, one in targets.items()}
    tests = {name: Task(one, _present(parts["test"], one)) for name, one in targets.items()}
    _say_split(labelled, tasks, tests)
    for task in tasks.values():
        refuse_unlearnable(task)
    head = options.head if head is None else head
    class_weight = None if options.class_weight == "none" else options.class_weight
    refuse_heads(targets, head, class_weight)
    refuse_fusions(targets, options.fusion, head, chosen)
    every = {name: _together(task, tests[name]) for name, task in tasks.items()}
    width = sum(store.layers[name] for name in chosen)
    plan = plan_tasks(every if options.refit else tasks, width, head, options.memory)
    learnt = learn_tasks(
        tasks,
        problems_of(store, chosen, labelled.groups, tasks, plan),
        fusion=options.fusion,
        head=head,
        class_weight=class_weight,
        random_state=options.seed,
        beside=plan.side_by_side,
        keeping=plan.keeping,
    )
    # Measured before the winners are refitted on the held-out rows, too.
    results = {name: _results(store, task, tests[name], learnt[name])
               for name, task in tasks.items()}  # fmt: skip
    if options.refit and any(len(test.rows) for test in tests.values()):
        split = split.trained_on_all()
        problem_of = problems_of(store, chosen, labelled.groups, every, plan)
        for name in (name for name, test in tests.items() if len(test.rows)):
            refitted = learnt[name].refit(problem_of(every[name]))
            learnt[name] = replace(learnt[name], pipeline=refitted)
            results[name] = replace(results[name], n_train=len(every[name].rows))
    used, heads = united(learnt, {name: store.layers[name] for name in chosen})
    owners = _owners(list(used))
    weights = {owner: store.weights[owner] for owner in owners if owner in store.weights}
    return TransferModel(
        specs={owner: specs[owner] for owner in owners},
        layers=used,
        heads=heads,
        results=results,
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


def _together(task: Task, test: Task) -> Task:
    return replace(task, rows=np.sort(np.concatenate([task.rows, test.rows])))


def _results(store: EmbeddingStore, task: Task, test: Task, learnt: Learnt) -> TargetResults:
    """Measure a head on its held-out rows."""
    figures: Mapping[str, float | None] = no_figures(task.target.kind)
    if len(test.rows):
        pieces = pieces_of(store, learnt.best.layers, test.rows)
        figures = measure(learnt.pipeline, pieces, test.target.subset(test.rows))
    return TargetResults(
        kind=task.target.kind,
        figures=figures,
        n_train=len(task.rows),
        n_test=len(test.rows),
        layers=learnt.best.layers,
        fusion=learnt.best.fusion,
        head=learnt.best.head,
        fusions=learnt.candidates,
    )


def _say_split(labelled: Labelled, tasks: Mapping[str, Task], tests: Mapping[str, Task]) -> None:
    split = labelled.split
    for name, task in tasks.items():
        about = f"{name}: " if len(tasks) > 1 else ""
        n_train, n_test = len(task.rows), len(tests[name].rows)
        _log.info(
            "%straining on %d rows, %d held out (seed %d)", about, n_train, n_test, split.seed
        )
    held_out = any(len(test.rows) for test in tests.values())
    if held_out and split.untested:
        _log.info("too few rows to hold any out: %s", ", ".join(split.untested))
    if split.crossing:
        _log.info(
            "%d held-out rows have a copy, or a row of their group, among the training rows: "
            "the given split is kept as it is",
            split.crossing,
        )
