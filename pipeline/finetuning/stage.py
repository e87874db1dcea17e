"""finetune(): stage 3, from a trained model to a network whose top blocks were trained."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.backbones import Backbone, Cut, resolve_device
from pipeline.config import FinetuneOptions
from pipeline.errors import OptionError, UnknownNameError
from pipeline.finetuning.feeds import BoundaryFeed, Feed, PictureFeed
from pipeline.finetuning.judging import Chosen, choose_weights
from pipeline.finetuning.looking import Looking
from pipeline.finetuning.network import TunableNetwork
from pipeline.finetuning.rows import TuningRows, find_rows
from pipeline.finetuning.start import Start
from pipeline.finetuning.traces import Traces, refuse_place
from pipeline.finetuning.training import Trained, scores_of, trained
from pipeline.finetuning.tuned import TunedBackbone, Tuning
from pipeline.heads import refuse_unfoldable
from pipeline.inputs import View
from pipeline.model import TransferModel, as_samples, folded_heads
from pipeline.samples import SampleSet

__all__ = ["finetune"]

_log = logging.getLogger(__name__)


def finetune(
    model: TransferModel,
    samples: SampleSet,
    blocks: int = 2,
    *,
    beside: str | Path | None = None,
    keep_state: bool = False,
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
    keep_state : bool
        Leave what lies beside the model, for whoever has work left to do until it is written,
        and then calls ``tuning.finish()``.
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
    chosen = _options(blocks, options)
    _refuse_heads(model)
    with torch.inference_mode(False), torch.enable_grad():  # whatever the program around it does
        backbone, tuning = _tuned(
            model, as_samples(samples), chosen, beside, keep_state=keep_state, progress=progress
        )
    return TunedBackbone.of(backbone, tuning)


def _tuned(
    model: TransferModel,
    samples: SampleSet,
    options: FinetuneOptions,
    beside: str | Path | None,
    *,
    keep_state: bool,
    progress: bool,
) -> tuple[Backbone, Tuning]:
    backbone = _only_backbone(model)
    device = resolve_device(options.device)
    if beside is not None:
        refuse_place(Path(beside))
    cut = Cut(backbone, [name.rpartition("/")[2] for name in model.layers], options.blocks, device)
    rows = find_rows(model, samples)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory()) if beside is None else ""
        traces = Traces.of(
            Path(beside or Path(folder, "model")), model, rows, options, kept=beside is not None
        )
        spec = model.specs_here(device)[backbone.name]
        looking = Looking(backbone, spec, model.layers, device, progress)
        tuning = _Stage(model, cut, looking, rows, options, traces).run()
        if not keep_state:
            tuning.finish()
    return backbone, tuning


def _refuse_heads(model: TransferModel) -> None:
    """Refuse what is not linear, or would not be if fitted on fewer rows."""
    folded_heads(model)
    for results in model.results.values():
        if results.head == "best":
            refuse_unfoldable(results.head, results.kind)


def _options(blocks: int, given: Mapping[str, Any]) -> FinetuneOptions:
    known = [field.name for field in dataclasses.fields(FinetuneOptions)]
    for name in given:
        if name not in known:
            raise UnknownNameError("option", name, known)
    return FinetuneOptions(blocks=blocks, **given)


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
    cut: Cut
    looking: Looking
    rows: TuningRows
    options: FinetuneOptions
    traces: Traces
    begun: Start | None = None

    @property
    def seed(self) -> int:
        return self.rows.split.seed if self.options.seed is None else self.options.seed

    def run(self) -> Tuning:
        with ExitStack() as opened:
            return self.tuned(*self.prepared(opened))

    def tuned(self, feed: Feed, start: Start) -> Tuning:
        network = TunableNetwork(self.cut, start).to(self.looking.device)
        frozen = network.state()
        done = trained(
            network, feed, torch.from_numpy(self.rows.train), start, self.options,
            self.seed, self.traces, progress=self.looking.progress,
        )  # fmt: skip

        def scores_with(state: Mapping[str, Tensor]) -> list[Tensor]:
            network.fill(state)
            return scores_of(network, feed, start.judge.rows)

        found = choose_weights(frozen, network.state(), scores_with, start.judge)
        network.fill(found.state)
        return self.judged(network, start, found, done)

    def prepared(self, opened: ExitStack) -> tuple[Feed, Start]:
        """Give what feeds the network, and the frozen model that it starts from."""
        if self.keeps_boundary():
            cache, X = self.looking.boundary(
                self.rows, self.cut, self.traces.boundary, self.traces.key, self.count, self.views
            )
            opened.enter_context(cache)
            return BoundaryFeed(cache, self.looking.device), self.start(X)
        X = self.looking.vectors(self.rows.samples)
        views = self.views(X)
        anew = self.options.no_boundary_cache and self.count > 1
        feed = PictureFeed(
            self.rows.samples, self.looking.spec, views, self.looking.device, anew=anew
        )
        return feed, self.start(X)

    def keeps_boundary(self) -> bool:
        if self.options.no_boundary_cache or self.cut.entrance is None:
            return False
        if self.cut.resumes():
            return True
        _log.info("something passes the boundary by in this network: all blocks run in each epoch")
        return False

    @property
    def count(self) -> int:
        """Views of each picture: not more than will be looked at."""
        return min(self.options.views, self.options.max_epochs + 1)

    def start(self, X: NDArray[np.float32]) -> Start:
        """Fit the frozen model without the validation rows, once."""
        if self.begun is None:
            self.begun = Start.of(self.model, self.rows, X, self.seed)
        return self.begun

    def views(self, X: NDArray[np.float32]) -> list[View]:
        """Settle how pictures are looked at, once the frozen network has seen them as they are."""
        flip = self.options.flip == "yes"
        if self.options.flip == "auto" and self.count > 1:
            own = self.rows.samples.subset(self.rows.validation)
            flip = self.start(X).mirrors(self.looking.vectors(own, View.mirror()))
        return [View(number, self.seed, flip) for number in range(self.count)]

    def judged(self, network: TunableNetwork, start: Start, found: Chosen, done: Trained) -> Tuning:
        """Say whether the tuned network serves better than the model that came in.

        Both are judged as they serve: by the same engine, which need not add up as training does.
        """
        judge = start.judge
        candidate = self.looking.backbone.with_module(self.cut.module)
        X = self.looking.of(candidate).vectors(self.rows.samples.subset(self.rows.validation))
        heads = network.folded()
        scores = {name: head.scores(X) for name, head in heads.items()}
        before, begun, after = map(start.losses, (start.rival, start.scores, scores))
        better = done.best_epoch > 0 and all(judge.better(own, after) for own in (before, begun))
        _log.info(
            "on %d validation rows the loss is %.4f frozen and %.4f tuned (%d %% of the way): %s",
            len(judge.rows), before.sum(), after.sum(), round(100 * found.share),
            "tuned is kept" if better else "not better beyond chance, frozen is kept",
        )  # fmt: skip
        scaled = [own.scaled(scores[own.name]) for own in judge.objectives]
        temperatures = map(judge.temperature, judge.objectives, scaled)
        softened = {
            name: head.softened(own)
            for (name, head), own in zip(heads.items(), temperatures, strict=True)
        }
        return Tuning(
            kept="tuned" if better else "frozen",
            candidate=candidate,
            candidate_heads=softened,
            frozen_outputs={name: heads[name].linked(own) for name, own in start.rival.items()},
            tuned_outputs={name: head.outputs(X) for name, head in softened.items()},
            validation_ids=tuple(self.rows.samples.ids[row] for row in self.rows.validation),
            n_train={
                objective.name: objective.labelled(self.rows.train)
                for objective in judge.objectives
            },
            frozen_loss=float(before.sum()),
            tuned_loss=float(after.sum()),
            figures=judge.figures(scaled),
            share=found.share,
            epochs=done.epochs,
            best_epoch=done.best_epoch,
            interrupted=done.interrupted,
            split=self.rows.split,
            traces=self.traces,
        )
