"""The log of a fine-tuning: as a table, and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.durable import write_durably

if TYPE_CHECKING:
    from pipeline.optimization import Epoch

__all__ = ["LoggedEpoch", "draw_log", "write_log"]


@dataclass(frozen=True)
class LoggedEpoch:
    """What is known of one epoch of fine-tuning.

    Parameters
    ----------
    epoch : Epoch
        Its losses are normalised: always saying the mean costs 1.
    accuracy : float
        Of the validation rows: share of right answers, of a number the variance explained,
        the mean over several tasks.
    """

    epoch: Epoch
    accuracy: float


def write_log(log: Sequence[LoggedEpoch], path: Path) -> None:
    """Write one row an epoch as CSV; losses are normalised: saying the mean costs 1."""
    header = ["epoch", "loss", "validation_loss", "accuracy", "rate", "seconds"]
    rows = [
        [
            one.epoch.number, one.epoch.loss, one.epoch.validation_loss, one.accuracy,
            one.epoch.lr, round(one.epoch.seconds, 3),
        ]
        for one in log
    ]  # fmt: skip
    with write_durably(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def draw_log(
    log: Sequence[LoggedEpoch], path: Path, *, kept: str, frozen_loss: float, best_epoch: int
) -> None:
    """Draw loss, accuracy and rate over the epochs as a PNG.

    Parameters
    ----------
    log : sequence of LoggedEpoch
    path : Path
    kept : {"tuned", "frozen"}
    frozen_loss : float
        Of the validation rows.
    best_epoch : int
    """
    from matplotlib.figure import Figure

    epochs = [one.epoch for one in log]
    numbers = [epoch.number for epoch in epochs]
    figure = Figure(figsize=(7, 7), layout="constrained")
    losses, accuracy, rate = figure.subplots(3, 1, sharex=True)
    losses.plot(numbers, [epoch.loss for epoch in epochs], "o-", label="training")
    losses.plot(numbers, [epoch.validation_loss for epoch in epochs], "o-", label="validation")
    losses.axhline(frozen_loss, color="grey", ls=":", label="frozen, validation")
    losses.axvline(best_epoch, color="grey", lw=0.5)
    losses.set(ylabel="loss (saying the mean: 1)", title=f"{kept} is kept")
    losses.legend()
    accuracy.plot(numbers, [one.accuracy for one in log], "o-", color="C1")
    accuracy.set(ylabel="accuracy, validation")
    rate.plot(numbers, [epoch.lr for epoch in epochs], "o-", color="C2")
    rate.set(ylabel="learning rate", xlabel="epoch")
    rate.xaxis.get_major_locator().set_params(integer=True)
    with write_durably(path) as temporary:
        figure.savefig(temporary, format="png")
