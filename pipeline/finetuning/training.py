"""Training: batches, rates and losses of a fine-tuning for the one training loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.backbones import native_bfloat16
from pipeline.config import FinetuneOptions, parse_count
from pipeline.finetuning.feeds import Feed
from pipeline.finetuning.judging import Judge
from pipeline.finetuning.network import TunableNetwork
from pipeline.finetuning.traces import Traces
from pipeline.finetuning.tuned import LoggedEpoch
from pipeline.optimization import Epoch, Group, optimize
from pipeline.progress import Progress, duration

__all__ = ["Trained", "batch_size_of", "scores_of", "trained"]

_log = logging.getLogger(__name__)

_PATIENCE = 5
_WARM_UP = 0.1
_AVERAGE = 0.98
_RATE, _TOKEN_RATE = 3e-3, 1e-4
"""For maps, by measurement on EfficientNet-Lite0 (validation loss, 0.0003 to 0.004); for tokens,
what is usual: no transformer with trained weights was at hand."""
_PULL = 0.1
_HEAD_RATE = 0.01
"""Of the heads, as a share of that of the top block: they begin at their optimum, and thousands
of weights on few rows would soon know these by heart."""
_DOUBT_RATE = 10
_ROWS_AT_ONCE = 256


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
    judge: Judge,
    options: FinetuneOptions,
    seed: int,
    traces: Traces,
    *,
    progress: bool,
) -> Trained:
    """Train a network in place, and leave its best weights.

    Parameters
    ----------
    network : TunableNetwork
    feed : Feed
    rows : int64 Tensor
        Those that are trained on.
    judge : Judge
    options : FinetuneOptions
    seed : int
        Of the order of the rows.
    traces : Traces
        Where the state after each epoch is kept.
    progress : bool
    """
    size = min(batch_size_of(options, len(rows)), len(rows))
    kept = traces.read_state()
    accuracies: list[float] = [] if kept is None else list(kept["accuracies"])
    steps = _Steps(network, feed, rows, size, options, seed)

    def validate() -> float:
        scores = scores_of(network, feed, judge.rows)
        accuracies.append(judge.accuracy(scores))
        return float(judge.losses(scores, soften=True).sum())

    def on_epoch(epoch: Epoch, state: Any) -> None:
        shown.advance(len(rows))
        _log.info(
            "epoch %d of at most %d: loss %.4f, on validation rows %.4f, accuracy %.3f, %s",
            epoch.number, options.max_epochs, epoch.loss, epoch.validation_loss, accuracies[-1],
            duration(epoch.seconds),
        )  # fmt: skip
        traces.write_state(state() | {"accuracies": list(accuracies)})

    with Progress(options.max_epochs * len(rows), "images", visible=progress) as shown:
        done = optimize(
            network, steps.batches, steps.loss, validate, _groups(network, options),
            steps_per_epoch=-(-len(rows) // size), max_epochs=options.max_epochs,
            patience=_PATIENCE, warm_up=_WARM_UP, average=_AVERAGE,
            bfloat16=network.offset.device.type == "cpu" and native_bfloat16(),
            stoppable=True, state=kept, on_epoch=on_epoch,
        )  # fmt: skip
    if done.interrupted:
        _log.info("stopped by hand: the best of %d epochs is kept", done.epochs)
    log = [LoggedEpoch(epoch, own) for epoch, own in zip(done.log, accuracies, strict=False)]
    return Trained(tuple(log), done.best_epoch, done.interrupted)


def scores_of(network: TunableNetwork, feed: Feed, rows: Tensor) -> list[Tensor]:
    """Give the scores of each task for rows as they are, on the CPU."""
    pieces = list(torch.split(rows, _ROWS_AT_ONCE))
    with torch.inference_mode():
        found = [[own.float().cpu() for own in network(*x)] for x in feed.inputs(pieces, 0)]
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


@dataclass(frozen=True, eq=False)
class _Steps:
    """Batches and their losses."""

    network: TunableNetwork
    feed: Feed
    rows: Tensor
    size: int
    options: FinetuneOptions
    seed: int

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, ...]]:
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


def _groups(network: TunableNetwork, options: FinetuneOptions) -> list[Group]:
    """Give the heads and each block their rate, and where they are pulled to."""
    lr = options.lr or (_TOKEN_RATE if network.cut.of_tokens else _RATE)
    heads = Group(list(network.heads.parameters()), lr * _HEAD_RATE, pull=_PULL)
    blocks = [
        Group(
            level, lr * options.decay**depth, pull=_PULL,
            first_epoch=1 + depth if options.gradual else 1,
        )
        for depth, level in enumerate(network.levels())
    ]  # fmt: skip
    if options.weighting == "uncertainty":
        return [heads, *blocks, Group([network.doubt], lr * _DOUBT_RATE)]
    return [heads, *blocks]
