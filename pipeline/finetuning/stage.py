"""finetune(): stage 3, from a trained model to a network whose top blocks were trained."""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.backbones import Backbone, Cut, resolve_device
from pipeline.config import FinetuneOptions
from pipeline.errors import OptionError
from pipeline.finetuning.feeds import BoundaryFeed, Feed, PictureFeed
from pipeline.finetuning.judging import Judge, choose_weights
from pipeline.finetuning.looking import Looking
from pipeline.finetuning.network import TunableNetwork
from pipeline.finetuning.rows import TuningRows, find_rows
from pipeline.finetuning.tasks import Task
from pipeline.finetuning.training import scores_of, trained
from pipeline.finetuning.traces import Traces
from pipeline.finetuning.tuned import TunedBackbone, Tuning
from pipeline.heads import Folded, Problem, folded
from pipeline.inputs import View
from pipeline.model import TransferModel
from pipeline.samples import SampleSet
from pipeline.training import relearn

__all__ = ["finetune"]

_log = logging.getLogger(__name__)

_FLIPPED_LOSS = 1.5
"""Mirror images keep their labels where the frozen model loses at most so many times as much."""


def finetune(
    model: TransferModel,
    samples: SampleSet,
    blocks: int = 2,
    *,
    beside: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> TunedBackbone:
    """Train the top blocks of a model's network end to end, starting from its head.

    The head becomes the network's linear layer exactly, then all of it is trained (LP-FT:
    Kumar et al., 2022, arXiv 2202.10054) with AdamW, rates that fall block by block, a pull to
    the start, frozen statistics of batch normalisation and a moving average of the weights.
    15 % of the training rows are set aside, on which the head that starts it was refitted
    without them, and on which everything is decided: when to end, how far to go from the
    frozen weights to the tuned ones, the temperature, and which of the two are kept.

    Parameters
    ----------
    model : TransferModel
        With linear heads, of one backbone.
    samples : SampleSet
        What it was trained on; rows that it holds out are not looked at.
    blocks : int
        How many blocks are trained, from the top.
    beside : path, optional
        Model that is to be made: the boundary cache and the state after each epoch lie beside
        it until the end (a killed tuning goes on from there), and its log stays. Without it
        they lie in a temporary folder.
    progress : bool
    **options
        The other fields of `FinetuneOptions`: ``max_epochs``, ``views``, ``flip``, ``lr``, ...

    Returns
    -------
    TunedBackbone
        With its tuned linear heads, ``heads``, and how it went, ``tuning``. Where the frozen
        network is as good, it is given back as it came, with no heads.

    Raises
    ------
    InputError
        When the source lacks training rows, or labels.
    OptionError
        When there are not so many blocks, or a head is not linear.
    BadInputError
        When an input can no longer be read.

    Examples
    --------
    >>> from pipeline import TransferModel, SampleSet, finetune
    >>> model = TransferModel.load("model.safetensors")  # doctest: +SKIP
    >>> tuned = finetune(model, SampleSet.from_folder("photos"), blocks=2)  # doctest: +SKIP
    >>> tuned.tuning.kept  # doctest: +SKIP
    'tuned'
    """
    chosen = FinetuneOptions(blocks=blocks, **options)
    rows = find_rows(model, samples)
    backbone = _only_backbone(model)
    for name, head in model.heads.items():
        folded(head, model.results[name].kind, sum(model.layers.values()), name=name)
    device = resolve_device(chosen.device)
    taps = [layer.rpartition("/")[2] for layer in model.layers]
    cut = Cut(backbone, taps, chosen.blocks, device)
    spec = model.specs_here(device)[backbone.name]
    looking = Looking(backbone, spec, model.layers, device, progress)
    with ExitStack() as stack:
        kept = beside is not None
        place = beside or Path(stack.enter_context(tempfile.TemporaryDirectory()), "model")
        traces = Traces.of(Path(place), model, rows, chosen, kept)
        return _Stage(model, backbone, cut, looking, rows, chosen, traces, device).run()


def _only_backbone(model: TransferModel) -> Backbone:
    if len(model.specs) > 1:
        raise OptionError(
            f"the model takes layers of {len(model.specs)} backbones ({', '.join(model.specs)}), "
            "but one network is tuned at a time. Train on the layers of one: --layers."
        )
    (backbone,) = model.backbones.values()
    return backbone


@dataclass(eq=False)
class _Stage:
    """What the steps of a fine-tuning share."""

    model: TransferModel
    backbone: Backbone
    cut: Cut
    looking: Looking
    rows: TuningRows
    options: FinetuneOptions
    traces: Traces
    device: str

    @property
    def seed(self) -> int:
        if self.options.seed is not None:
            return self.options.seed
        return self.rows.split.seed

    def run(self) -> TunedBackbone:
        flip = self.options.flip == "yes" or (self.options.flip == "auto" and self.may_flip())
        feed, X = self.feed(flip)
        heads = self.frozen_heads(X)
        tasks = [
            Task.of(self.rows.targets[name], head, self.rows.train, self.class_weight(name))
            for name, head in heads.items()
        ]
        offset, scale = _scaling(X[self.rows.train], self.model)
        network = TunableNetwork(self.cut, list(heads.values()), tasks, offset, scale)
        network.to(self.device)
        start = network.state()
        judge = Judge(tasks, torch.from_numpy(self.rows.validation))
        frozen = self.frozen_scores(X, heads, tasks)
        done = trained(
            network, feed, torch.from_numpy(self.rows.train), judge, self.options, self.seed,
            self.traces, self.looking.progress,
        )  # fmt: skip
        tuning = self.judged(network, feed, judge, start, frozen, heads, done)
        self.traces.finish(tuning)
        kept = self.cut.module if tuning.kept == "tuned" else None
        return TunedBackbone.of(self.backbone, tuning, kept)

    def judged(
        self, network: TunableNetwork, feed: Feed, judge: Judge, start: dict[str, Tensor],
        frozen: list[Tensor], heads: dict[str, Folded], done: Any,
    ) -> Tuning:  # fmt: skip
        """Choose the weights, and say whether they are better than the frozen ones."""

        def scores_with(state: Any) -> list[Tensor]:
            network.fill(state)
            return scores_of(network, feed, judge.rows)

        found = choose_weights(start, network.state(), scores_with, judge)
        network.fill(found.state)
        before = judge.losses(frozen, soften=False)
        after = judge.losses(found.scores, soften=True)
        kept: Literal["tuned", "frozen"] = "tuned" if judge.better(before, after) else "frozen"
        tuned = {
            name: network.folded(place, head, judge.temperature(task, scores))
            for place, ((name, head), task, scores) in enumerate(
                zip(heads.items(), judge.tasks, found.scores, strict=True)
            )
        }
        _log.info(
            "on %d validation rows the loss is %.4f frozen and %.4f tuned (%d %% of the way): %s "
            "is kept",
            len(judge.rows), before.sum(), after.sum(), round(100 * found.share), kept,
        )  # fmt: skip
        return Tuning(
            kept=kept,
            heads=tuned if kept == "tuned" else {},
            validation_ids=tuple(self.rows.samples.ids[row] for row in self.rows.validation),
            frozen_loss=float(before.sum()),
            tuned_loss=float(after.sum()),
            share=found.share,
            epochs=done.epochs,
            best_epoch=done.best_epoch,
            interrupted=done.interrupted,
            split=self.rows.split,
        )

    def feed(self, flip: bool) -> tuple[Feed, NDArray[np.float32]]:
        """Give what feeds the network, and the layers of all rows as the frozen one has them."""
        count = min(self.options.views, self.options.max_epochs + 1)
        views = [View(number, self.seed, flip) for number in range(count)]
        cached = not self.options.no_boundary_cache
        if cached and self.cut.entrance is not None and not self.cut.resumes():
            _log.info(
                "something in this network passes the boundary by: all blocks run in every epoch"
            )
            cached = False
        if cached and self.cut.entrance is not None:
            key = f"{self.traces.key} {flip}"
            cache, X = self.looking.boundary(self.rows, self.cut, self.traces.boundary, key, views)
            return BoundaryFeed(cache, self.device), X
        taking_turns = [] if self.options.no_boundary_cache else views
        if self.options.views == 1:
            taking_turns = views
        X = self.looking.vectors(self.rows.samples)
        spec = self.looking.spec
        return PictureFeed(self.rows.samples, spec, taking_turns, self.seed, flip, self.device), X

    def may_flip(self) -> bool:
        """Ask the validation rows whether mirror images keep their labels."""
        if self.options.views == 1 and not self.options.no_boundary_cache:
            return False
        own = self.rows.samples.subset(self.rows.validation)
        targets = {n: t.subset(self.rows.validation) for n, t in self.rows.targets.items()}
        heads = {
            name: folded(head, self.model.results[name].kind, sum(self.model.layers.values()))
            for name, head in self.model.heads.items()
        }
        everyone = np.arange(len(own))
        tasks = [Task.of(targets[name], head, everyone) for name, head in heads.items()]
        judge = Judge(tasks, torch.from_numpy(everyone))
        losses = [
            judge.losses(_scores(self.looking.vectors(own, view), heads, tasks), soften=False).sum()
            for view in (None, View.mirror())
        ]
        allowed = bool(losses[1] <= _FLIPPED_LOSS * losses[0])
        _log.info(
            "mirror images %s their labels: a loss of %.3f, %.3f as they are",
            "keep" if allowed else "do not keep", losses[1], losses[0],
        )  # fmt: skip
        return allowed

    def frozen_heads(self, X: NDArray[np.float32]) -> dict[str, Folded]:
        """Fit the heads again without the validation rows."""
        found = {}
        ends = np.cumsum(list(self.model.layers.values())).tolist()
        slices = dict(zip(self.model.layers, map(slice, [0, *ends], ends), strict=False))
        groups = self.groups()
        for name, head in self.model.heads.items():
            target = self.rows.targets[name]
            rows = self.rows.train[target.present[self.rows.train]]
            problem = Problem(
                X[rows], slices, target.subset(rows),
                groups=None if groups is None else [groups[row] for row in rows],
                digests=[self.rows.digests[row] for row in rows],
            )  # fmt: skip
            results = self.model.results[name]
            own = relearn(head, results.fusions[0], problem, self.seed)
            found[name] = folded(own, results.kind, X.shape[1], name=name)
        return found

    def groups(self) -> list[str] | None:
        """Give the group of every row, as the model's split has it."""
        split = self.rows.split
        if split.groups is None:
            return None
        known = dict(zip(split.digests, split.groups, strict=True))
        return [known[digest] for digest in self.rows.digests]

    def frozen_scores(
        self, X: NDArray[np.float32], heads: dict[str, Folded], tasks: list[Task]
    ) -> list[Tensor]:
        return _scores(X[self.rows.validation], heads, tasks)

    def class_weight(self, name: str) -> Any:
        weights = self.model.heads[name].get_params().items()
        return next((v for key, v in weights if key.endswith("class_weight") and v), None)


def _scores(X: NDArray[np.float32], heads: dict[str, Folded], tasks: list[Task]) -> list[Tensor]:
    """Give scores as a `TunableNetwork` gives them: numbers of mean 0 and variance 1."""
    return [
        torch.from_numpy((head.scores(X) - task.mean) / task.spread)
        for head, task in zip(heads.values(), tasks, strict=True)
    ]


def _scaling(
    X: NDArray[np.float32], model: TransferModel
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the means, and one factor a layer that gives its features variance 1 on average."""
    offset, scale, start = X.mean(axis=0, dtype=np.float64), np.ones(X.shape[1]), 0
    for width in model.layers.values():
        own = slice(start, start + width)
        spread = float(X[:, own].var(axis=0, dtype=np.float64).mean()) ** 0.5
        scale[own] = 1 / (spread or 1.0)
        start += width
    return offset, scale
