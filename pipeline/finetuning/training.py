"""Training: batches, rates and losses of a fine-tuning for the one training loop."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.backbones import native_bfloat16
from pipeline.config import FinetuneOptions, parse_count
from pipeline.finetuning.feeds import Feed
from pipeline.finetuning.judging import Judge
from pipeline.finetuning.log import LoggedEpoch
from pipeline.finetuning.network import TunableNetwork
from pipeline.finetuning.start import Start
from pipeline.finetuning.traces import Traces
from pipeline.optimization import Epoch, Group, Optimized, optimize
from pipeline.progress import Progress, duration

__all__ = ["Trained", "batch_size_of", "scores_of", "trained"]

_log = logging.getLogger(__name__)

_PATIENCE = 5
_WARM_UP, _WARM_UP_STEPS = 0.1, 30
"""A tenth of all steps, and not fewer than so many."""
_MUCH_WORSE, _BAD = 3.0, 0.5
"""A training diverges whose loss is so many times that of the frozen model, and so high."""
_BATCHES_BEFORE = 16
"""So many show what the frozen model loses on pictures as they are trained on."""
_AVERAGE = 0.98
_RATE, _TOKEN_RATE = 4e-3, 1e-4
"""For maps, by measurement on EfficientNet-Lite0 (other rows than those that were tested on, 0.0003
to 0.008); for tokens, what is usual: no transformer with trained weights was at hand."""
_LOWEST_RATE = 1e-6
_PULL = 0.1
_HEAD_RATE = 0.01
"""Of the heads, as a share of that of the top block: they begin at their optimum, and thousands
of weights on few rows would soon know these by heart."""
_DOUBT_RATE = 10
_ROWS_AT_ONCE = 64
"""As in a step of training, which takes more memory."""


@dataclass(frozen=True)
class Trained:
    """What a training came to: see `Tuning`."""

    epochs: tuple[LoggedEpoch, ...]
    best_epoch: int
    interrupted: bool


def batch_size_of(options: FinetuneOptions, n_rows: int) -> int:
    """Give the batch size: 64, or 32 where rows are few."""
    return parse_count("batch size", options.batch_size) or (64 if n_rows >= 1000 else 32)


def trained(
    network: TunableNetwork,
    feed: Feed,
    rows: Tensor,
    start: Start,
    options: FinetuneOptions,
    seed: int,
    traces: Traces,
    *,
    progress: bool,
) -> Trained:
    """Train a network in place, and leave its best weights.

    A rate that nobody asked for is lowered until the training does not diverge.

    Parameters
    ----------
    network : TunableNetwork
    feed : Feed
    rows : int64 Tensor
        Those that are trained on.
    start : Start
    options : FinetuneOptions
    seed : int
        Of the order of the rows.
    traces : Traces
        Where the state after each epoch is kept.
    progress : bool
    """
    kept = traces.read_state()
    rate = options.lr or (_TOKEN_RATE if network.cut.of_tokens else _RATE)
    rate = rate if kept is None else kept["rate"]
    attempt = _Attempt(network, feed, rows, start.judge, options, seed, traces, rate, kept)
    frozen = network.state()
    worst = None
    if not options.lr:
        known = max(float(start.losses(start.scores).sum()), attempt.loss_before())
        worst = max(_MUCH_WORSE * known, _BAD)
    while True:
        log, done = attempt.run(progress, worst)
        if not done.diverged or attempt.rate < _LOWEST_RATE:
            break
        network.fill(frozen)
        _log.info(
            "a rate of %.2g is too high for these pictures: again with a third of it", attempt.rate
        )
        attempt = replace(attempt, rate=attempt.rate / 3, state=None)
    if done.interrupted:
        _log.info("stopped by hand: the best of %d epochs is kept", done.epochs)
    return Trained(log, done.best_epoch, done.interrupted)


def scores_of(network: TunableNetwork, feed: Feed, rows: Tensor) -> list[Tensor]:
    """Give the scores of each task for rows as they are, on the CPU."""
    pieces = list(torch.split(rows, _ROWS_AT_ONCE))
    with torch.inference_mode():
        found = [[own.float().cpu() for own in network(*x)] for x in feed.inputs(pieces, 0)]
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


@dataclass(frozen=True, eq=False)
class _Attempt:
    """A training at one rate."""

    network: TunableNetwork
    feed: Feed
    rows: Tensor
    judge: Judge
    options: FinetuneOptions
    seed: int
    traces: Traces
    rate: float
    state: Mapping[str, Any] | None

    @property
    def size(self) -> int:
        """Rows of a batch."""
        return min(batch_size_of(self.options, len(self.rows)), len(self.rows))

    def run(self, progress: bool, worst: float | None) -> tuple[tuple[LoggedEpoch, ...], Optimized]:
        """Train from the start, or from the state of a training that was killed."""
        accuracies: list[float] = [] if self.state is None else list(self.state["accuracies"])
        epochs, steps = self.options.max_epochs, -(-len(self.rows) // self.size)

        def validate() -> float:
            scores = scores_of(self.network, self.feed, self.judge.rows)
            accuracies.append(self.judge.accuracy(scores))
            return float(self.judge.losses(scores).sum())

        def on_epoch(epoch: Epoch, state: Callable[[], dict[str, Any]]) -> None:
            shown.advance(len(self.rows))
            _log.info(
                "epoch %d of at most %d: loss %.4f, on validation rows %.4f, accuracy %.3f, %s",
                epoch.number, epochs, epoch.loss, epoch.validation_loss, accuracies[-1],
                duration(epoch.seconds),
            )  # fmt: skip
            self.traces.write_state(state() | {"accuracies": list(accuracies), "rate": self.rate})

        on_cpu = self.network.offset.device.type == "cpu"
        with Progress(epochs * len(self.rows), "images", visible=progress) as shown:
            done = optimize(
                self.network, self.batches, self.loss, validate, self.groups(),
                steps_per_epoch=steps, max_epochs=epochs, patience=_PATIENCE, average=_AVERAGE,
                warm_up=min(max(_WARM_UP, _WARM_UP_STEPS / (steps * epochs)), 0.5),
                bfloat16=on_cpu and native_bfloat16(),
                stoppable=self.traces.kept, state=self.state, worst=worst, on_epoch=on_epoch,
            )  # fmt: skip
        pairs = zip(done.log, accuracies, strict=False)
        return tuple(LoggedEpoch(epoch, own) for epoch, own in pairs), done

    def loss_before(self) -> float:
        """Give the loss of the frozen model on pictures of the first epoch, cut and shifted."""
        with closing(self.batches(1)) as batches, torch.inference_mode():
            first = itertools.islice(batches, _BATCHES_BEFORE)
            losses = [float(self.loss(self.network, *batch)) for batch in first]
        return sum(losses) / len(losses)

    def batches(self, epoch: int) -> Generator[tuple[Tensor, ...], None, None]:
        """Give rows, their share in the loss of each task, and the inputs of the network."""
        generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        order = self.rows[torch.randperm(len(self.rows), generator=generator)]
        chosen = list(torch.split(order, self.size))
        weights = torch.stack([objective.weight for objective in self.network.objectives], dim=1)
        for own, inputs in zip(chosen, self.feed.inputs(chosen, epoch), strict=True):
            shares = weights[own] / weights[own].sum(dim=0).clamp(min=1e-12)
            yield own, shares, *inputs

    def loss(self, network: TunableNetwork, own: Tensor, shares: Tensor, *inputs: Tensor) -> Tensor:
        """Add up the losses of the tasks, each the mean over its rows with a label."""
        scores = network(*inputs)
        parts = []
        for place, objective in enumerate(network.objectives):
            share = shares[:, place].to(scores[place].device)
            part = (objective.losses(scores[place].float(), own) * share).sum()
            if self.options.weighting == "uncertainty":  # Kendall et al. (2018), arXiv 1705.07115
                doubt = network.doubt[place].clamp(-3, 3)
                part = (part * torch.exp(-doubt) + doubt * share.sum()) / 2
            parts.append(part)
        return torch.stack(parts).mean()

    def groups(self) -> list[Group]:
        """Give each block and the heads their rate, and where they are pulled to."""
        blocks = [
            Group(
                level, self.rate * self.options.decay**depth, pull=_PULL,
                first_epoch=1 + depth if self.options.gradual else 1,
            )
            for depth, level in enumerate(self.network.levels())
        ]  # fmt: skip
        heads = Group(list(self.network.heads.parameters()), self.rate * _HEAD_RATE, pull=_PULL)
        if self.options.weighting == "uncertainty":
            return [*blocks, heads, Group([self.network.doubt], self.rate * _DOUBT_RATE)]
        return [*blocks, heads]
