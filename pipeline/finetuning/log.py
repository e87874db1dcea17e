"""The log of a fine-tuning: as a table, and as a picture."""

from __future__ import annotations

from pathlib import Path

from pipeline.durable import write_durably
from pipeline.finetuning.tuned import Tuning

__all__ = ["draw_log", "log_table"]


def log_table(tuning: Tuning) -> tuple[list[str], list[list[float]]]:
    """Give header and one row an epoch; losses are normalised: saying the mean costs 1."""
    header = ["epoch", "loss", "validation_loss", "accuracy", "rate", "seconds"]
    rows = [
        [
            one.epoch.number, one.epoch.loss, one.epoch.validation_loss, one.accuracy,
            one.epoch.lr, round(one.epoch.seconds, 3),
        ]
        for one in tuning.epochs
    ]  # fmt: skip
    return header, rows


def draw_log(tuning: Tuning, path: Path) -> None:
    """Draw loss, accuracy and rate over the epochs as a PNG."""
    from matplotlib.figure import Figure

    epochs = [one.epoch for one in tuning.epochs]
    numbers = [epoch.number for epoch in epochs]
    figure = Figure(figsize=(7, 7), layout="constrained")
    losses, accuracy, rate = figure.subplots(3, 1, sharex=True)
    losses.plot(numbers, [epoch.loss for epoch in epochs], "o-", label="training")
    losses.plot(numbers, [epoch.validation_loss for epoch in epochs], "o-", label="validation")
    losses.axhline(tuning.frozen_loss, color="grey", ls=":", label="frozen, validation")
    losses.axvline(tuning.best_epoch, color="grey", lw=0.5)
    losses.set(ylabel="loss (saying the mean: 1)", title=f"{tuning.kept} is kept")
    losses.legend()
    accuracy.plot(numbers, [one.accuracy for one in tuning.epochs], "o-", color="C1")
    accuracy.set(ylabel="accuracy, validation")
    rate.plot(numbers, [epoch.lr for epoch in epochs], "o-", color="C2")
    rate.set(ylabel="learning rate", xlabel="epoch")
    rate.xaxis.get_major_locator().set_params(integer=True)
    with write_durably(path) as temporary:
        figure.savefig(temporary, format="png")
