"""Tasks: the targets that are trained together, each with its own labelled rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, OptionError
from pipeline.fusion import slices_of
from pipeline.heads import (
    MOST_COMPONENTS,
    Problem,
    Sharing,
    check_choice,
    is_ridge,
    make_head,
    resolved_head,
    widened,
)
from pipeline.processors import one_thread, usable_processors
from pipeline.training.labelled import refuse_sameness
from pipeline.training.learning import Learnt, learn
from pipeline.training.memory import MemoryPlan, plan_memory
from pipeline.training.rows import Task, rows_of_all

if TYPE_CHECKING:
    from pipeline.samples import Target

__all__ = [
    "Task",
    "groups_of",
    "learn_tasks",
    "plan_tasks",
    "refuse_fusions",
    "refuse_heads",
    "refuse_unlearnable",
    "united",
]

_log = logging.getLogger(__name__)

_FEW_ROWS = 1_000
"""A task of so few rows is worked on by one thread anyway."""


def refuse_unlearnable(task: Task) -> None:
    """Refuse a target that the training rows say nothing of, or the same in all of them.

    Raises
    ------
    InputError
    """
    if not len(task.rows):
        raise InputError(
            f"target {task.target.name!r} has no label in any of the rows that are left to train "
            "on. Label some of them, or leave the target out."
        )
    among = f"the {len(task.rows)} rows that are left to train on"
    refuse_sameness(task.target.subset(task.rows), among)


def refuse_heads(targets: Mapping[str, Target], head: Any, class_weight: str | None) -> None:
    """Refuse a head, or weights of classes, that do not suit a target, naming it.

    Raises
    ------
    UnknownNameError
        For a head that does not exist.
    OptionError
    """
    for name, target in targets.items():
        weight = _weight_for(target, targets, class_weight)
        with _about(name, targets):
            make_head(resolved_head(head, target.kind), target.kind, class_weight=weight)


def refuse_fusions(
    targets: Mapping[str, Target], fusion: str, head: Any, layers: Sequence[str]
) -> None:
    """Refuse a fusion that does not exist, or does not suit a target, naming it; as above."""
    for name, target in targets.items():
        with _about(name, targets):
            check_choice(fusion, head, target.kind, layers)


def groups_of(tasks: Mapping[str, Task]) -> list[list[str]]:
    """Put tasks together that have the same rows, in the order of the first of each."""
    groups: dict[bytes, list[str]] = {}
    for name, task in tasks.items():
        groups.setdefault(task.rows.tobytes(), []).append(name)
    return list(groups.values())


def plan_tasks(
    tasks: Mapping[str, Task], n_features: int, head: Any, memory: str | None = None
) -> MemoryPlan:
    """Plan the memory for some tasks; parameters as for `plan_memory`."""
    n_samples = len(rows_of_all(tasks.values()))
    sizes = [len(task.rows) for task in tasks.values()]
    if isinstance(head, str) and head == "best":
        n_features = max(n_features, MOST_COMPONENTS)
    return plan_memory(
        n_samples,
        n_features,
        max(1, *(len(task.target.classes) for task in tasks.values())),
        memory,
        parts=[size for size in sizes if size < n_samples],
        side_by_side=_side_by_side(tasks, head),
        keeping=len(groups_of(tasks)) < len(tasks),
    )


def _side_by_side(tasks: Mapping[str, Task], head: Any) -> int:
    """Say how many groups of tasks are best trained at the same time, a thread each.

    Only ridge: other heads count their own threads, or change what all threads share. Where
    processors are many and rows too, linear algebra makes better use of them by itself.
    """
    kinds = {task.target.kind for task in tasks.values()}
    if not all(is_ridge(resolved_head(head, kind), kind) for kind in kinds):
        return 1
    groups, processors = len(groups_of(tasks)), usable_processors()
    many = max(len(task.rows) for task in tasks.values()) > _FEW_ROWS
    return 1 if many and processors > 2 * groups else min(groups, processors)


def learn_tasks(
    tasks: Mapping[str, Task],
    problem_of: Callable[[Task], Problem],
    *,
    fusion: str,
    head: Any,
    class_weight: str | None,
    random_state: int,
    beside: int = 1,
    keeping: bool = False,
) -> dict[str, Learnt]:
    """Learn every task as it would be learnt alone.

    What tasks of the same rows have in common is computed once.

    Parameters
    ----------
    tasks : dict of str to Task
    problem_of : callable
        Gives the problem of a task; asked once for all tasks of the same rows.
    fusion, head, class_weight, random_state
        As for `learn`; class weights go to the targets that have classes.
    beside : int
        Groups of tasks that are learnt at the same time.
    keeping : bool
        Whether there is memory to keep decompositions for tasks of the same rows.
    """
    targets = {name: task.target for name, task in tasks.items()}
    learnt: dict[str, Learnt] = {}

    def learn_group(names: Sequence[str]) -> None:
        sharing = Sharing(keeping) if len(names) > 1 else None
        common = replace(problem_of(tasks[names[0]]), sharing=sharing)
        for name in names:
            own = targets[name].subset(tasks[name].rows)
            with _about(name, targets):
                learnt[name] = learn(
                    replace(common, target=own),
                    fusion=fusion,
                    head=head,
                    class_weight=_weight_for(own, targets, class_weight),
                    random_state=random_state,
                )

    _each(learn_group, groups_of(tasks), beside)
    for name in tasks:
        about = f"{name}: " if len(tasks) > 1 else ""
        _log.info("%s%s", about, learnt[name].reason())
    return {name: learnt[name] for name in tasks}


def united(
    learnt: Mapping[str, Learnt], layers: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, Any]]:
    """Bring heads that look at different layers to one matrix.

    Parameters
    ----------
    learnt : dict of str to Learnt
    layers : dict of str to int
        Width of every layer that there is, bottom to top.

    Returns
    -------
    layers : dict of str to int
        Those that any head looks at.
    heads : dict of str to Pipeline
        On the columns of these.
    """
    used = {name for one in learnt.values() for name in one.best.layers}
    taken = {name: width for name, width in layers.items() if name in used}
    slices = slices_of(taken)
    return taken, {
        name: one.pipeline if one.best.layers == tuple(taken) else widened(one.pipeline, slices)
        for name, one in learnt.items()
    }


def _each(work: Callable[[Sequence[str]], None], groups: list[list[str]], beside: int) -> None:
    if beside == 1:
        for names in groups:
            work(names)
        return
    # Linear algebra in several threads at once would wait for itself: one thread each.
    with one_thread(True), ThreadPoolExecutor(beside, thread_name_prefix="training") as pool:
        waiting = [pool.submit(work, names) for names in groups]
        try:
            for one in waiting:
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _weight_for(
    target: Target, targets: Mapping[str, Target], class_weight: str | None
) -> str | None:
    """Give class weights to the targets that have classes; to a number where there is no other."""
    others = any(one.kind != "number" for one in targets.values())
    return None if target.kind == "number" and others else class_weight


@contextmanager
def _about(name: str, targets: Mapping[str, Target]) -> Iterator[None]:
    """Name the target in an error about an option, where there are several."""
    try:
        yield
    except OptionError as error:
        if len(targets) == 1:
            raise
        raise OptionError(f"target {name!r}: {error}") from error
