"""What the doors share that embed pictures and train heads on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from pipeline.embedding import Fetched
from pipeline.errors import InputError, OptionError
from pipeline.estimators.embedder import Embeds
from pipeline.flow import tuned
from pipeline.heads import Problem, refuse_unfoldable
from pipeline.model import TransferModel
from pipeline.results import TargetResults
from pipeline.samples import SampleSet, Split, Target
from pipeline.training import (
    Learnt,
    MemoryPlan,
    Task,
    learn_tasks,
    no_figures,
    plan_tasks,
    refuse_fusions,
    refuse_heads,
    refuse_sameness,
    united,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.backbones import Backbone
    from pipeline.finetuning import Tuning

__all__ = ["Transfers"]


class Transfers(Embeds):
    """Embeds pictures, and trains a head for every target."""

    def __init__(
        self,
        backbone: str | Backbone = "efficientnet_lite0",
        *,
        layers: str | Sequence[str] = "auto",
        pooling: str = "auto",
        image_size: int | None = None,
        resize: str = "crop",
        fusion: str = "auto",
        head: Any = "auto",
        finetune_blocks: int = 0,
        cache_dir: str | Path | None = None,
        batch_size: int | str = "auto",
        device: str = "auto",
        precision: str = "auto",
        on_bad_input: str = "fail",
        random_state: int = 0,
    ) -> None:
        self.backbone = backbone
        self.layers = layers
        self.pooling = pooling
        self.image_size = image_size
        self.resize = resize
        self.fusion = fusion
        self.head = head
        self.finetune_blocks = finetune_blocks
        self.cache_dir = cache_dir
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.on_bad_input = on_bad_input
        self.random_state = random_state

    def _fit(
        self,
        X: Any,
        targets: Mapping[str, Target],
        fetched: Fetched,
        *,
        sample_weight: Any = None,
        groups: Any = None,
    ) -> Self:
        """Train a head for every target, on the rows that have a label and could be read."""
        check_consistent_length(X, sample_weight, groups)
        self._refuse_tuning(targets, sample_weight)
        about = {name: f" of {name!r}" if len(targets) > 1 else "" for name in targets}
        tasks = {name: _task(one, fetched, about[name]) for name, one in targets.items()}
        class_weight = getattr(self, "class_weight", None)
        refuse_heads(targets, self.head, class_weight)
        refuse_fusions(targets, self.fusion, self.head, list(fetched.layer_slices))
        readable = np.flatnonzero(fetched.usable)

        def problem_of(task: Task) -> Problem:
            rows, places = task.rows, readable[task.rows]
            return Problem(
                fetched.X if len(rows) == len(fetched.X) else fetched.X[rows],
                fetched.layer_slices,
                task.target.subset(rows),
                groups=None if groups is None else list(_safe_indexing(groups, places)),
                digests=[fetched.digests[row] for row in rows],
                sample_weight=None if sample_weight is None else np.asarray(sample_weight)[places],
            )

        plan = MemoryPlan(True, 0, 0)
        with suppress(OptionError):  # one after the other needs least, and no more is known
            plan = plan_tasks(tasks, fetched.X.shape[1], self.head)
        learnt = learn_tasks(
            tasks,
            problem_of,
            fusion=self.fusion,
            head=self.head,
            class_weight=class_weight,
            random_state=self.random_state,
            beside=plan.side_by_side,
            keeping=plan.keeping,
        )
        self.model_ = self._model(learnt, tasks, fetched, groups)
        self.tuning_: Tuning | None = None
        if self.finetune_blocks:
            self._tune(_safe_indexing(X, readable), tasks)
        return self

    def _refuse_tuning(self, targets: Mapping[str, Target], sample_weight: Any) -> None:
        blocks = self.finetune_blocks
        if not isinstance(blocks, Integral) or blocks < 0:
            raise OptionError(
                f"finetune_blocks is {blocks!r}, but must be 0, which leaves the network frozen, "
                "or the number of blocks to train."
            )
        if not blocks:
            return
        if sample_weight is not None:
            raise OptionError(
                "sample_weight was given, but fine-tuning counts every row alike. Leave it out, "
                "or finetune_blocks=0."
            )
        for target in targets.values():
            refuse_unfoldable(self.head, target.kind)

    def _tune(self, X: Any, tasks: Mapping[str, Task]) -> None:
        columns = {name: task.target.values for name, task in tasks.items()}
        outcome = tuned(
            self.model_, SampleSet.from_list(X, columns), int(self.finetune_blocks),
            device=self.device, seed=self.random_state,
        )  # fmt: skip
        self.model_, self.tuning_ = outcome.model, outcome.backbone.tuning

    def _model(
        self,
        learnt: Mapping[str, Learnt],
        tasks: Mapping[str, Task],
        fetched: Fetched,
        groups: Any,
    ) -> TransferModel:
        cache = self._cache()
        layers, heads = united(learnt, cache.layers)
        results = {
            name: TargetResults(
                kind=task.target.kind,
                figures=no_figures(task.target.kind),
                n_train=len(task.rows),
                n_test=0,
                layers=learnt[name].best.layers,
                fusion=learnt[name].best.fusion,
                head=learnt[name].best.head,
                fusions=learnt[name].candidates,
            )
            for name, task in tasks.items()
        }
        rows = np.unique(np.concatenate([task.rows for task in tasks.values()]))
        trained = {fetched.digests[row].hex(): fetched.digests[row] for row in rows}
        kinship = None
        if groups is not None:  # of equal contents the last row's group, like the digest's
            places = np.flatnonzero(fetched.usable)[rows]
            own = zip(rows, _safe_indexing(groups, places), strict=True)
            by_name = {fetched.digests[row].hex(): group for row, group in own}
            kinship = [by_name[name] for name in trained]
        return TransferModel(
            specs={cache.spec.backbone: cache.spec},
            layers=layers,
            heads=heads,
            results=results,
            split=Split.make(
                list(trained), list(trained.values()), None,
                test_fraction=0, seed=self.random_state, groups=kinship,
            ),
            weights={} if cache.weights == "default" else {cache.spec.backbone: cache.weights},
            given={} if isinstance(self.backbone, str) else {self.backbone.name: self.backbone},
        )  # fmt: skip

    def _head_input(self, X: Any) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Give the columns that the heads take, and which inputs they are of."""
        check_is_fitted(self)
        if self.model_.states:  # what a tuned network gives is not kept
            embedded = self.model_.embed(
                SampleSet.from_list(X), on_bad_input=self.on_bad_input, device=self.device
            )
            return embedded.X, embedded.usable
        fetched = self._fetch(X)
        columns = [fetched.X[:, fetched.layer_slices[name]] for name in self.model_.layers]
        return np.concatenate(columns, axis=1), fetched.usable

    def save(self, path: str | Path) -> None:
        """Write the model file that `TransferModel.load` and ``pipeline predict`` read."""
        check_is_fitted(self)
        self.model_.save(path)


def _task(target: Target, fetched: Fetched, about: str) -> Task:
    """Find the rows of a target; ``about`` names it in an error where there are several."""
    own = target.subset(fetched.usable)
    task = Task(own, np.flatnonzero(own.present))
    if not len(task.rows):
        raise InputError(f"no input has both a label{about} and a readable picture. Label some.")
    refuse_sameness(own.subset(task.rows))
    return task
