"""Accuracy of fine-tuning: frozen and tuned on Fashion-MNIST, with many rows and with few."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from accuracy import OPTIONS, fashion
from findings import Sheet
from stages import Frozen, measured

from pipeline import EmbeddingStore, SampleSet, embed

BACKBONE = "efficientnet_lite0"
FEW = 10
"""Images per class of the small draws."""


def accuracy(given: argparse.Namespace) -> Sheet:
    """Compare the frozen fused head with the tuned top blocks, on the same held-out rows."""
    train, test = parts(given)
    sheet = Sheet(f"Fashion-MNIST, {len(train):,} train, {len(test):,} test, {BACKBONE}, 128 px")
    with embed(test, BACKBONE, given.work / "test.h5", options=OPTIONS) as held_out:
        frozen = Frozen.of(train, BACKBONE, given.work / "train.h5", OPTIONS)
        for blocks in given.blocks:
            gains, losses, seconds = [], [], []
            for seed in range(given.seeds):
                row = compared(frozen, test, held_out, given, blocks=blocks, seed=seed)
                sheet.add(**row, **{f"{name}_seconds": s for name, s in frozen.seconds.items()})
                print(sheet.rows[-1], file=sys.stderr, flush=True)
                gains.append(row["accuracy_kept"] - row["accuracy_frozen"])
                losses.append(row["log_loss_kept"] - row["log_loss_frozen"])
                seconds.append(row["tune_seconds"])
            what = f"top {blocks} blocks"
            sheet.judge(f"{what}: accuracy, kept - frozen", gains, 0.015)
            sheet.judge(f"{what}: log-loss, kept - frozen", losses, 0, at_most=True)
            sheet.judge(f"{what}: seconds of tuning", seconds, 600, unit=" s", at_most=True)
        few(sheet, train, test, held_out, given)
    return sheet


def parts(given: argparse.Namespace) -> tuple[SampleSet, SampleSet]:
    """Give the rows to train on and those to test on, without their column of parts."""
    samples = fashion(given.train_rows)
    split = np.asarray(samples.columns.pop("split"))
    test = np.flatnonzero(split == "test")[: given.test_rows]
    return samples.subset(np.flatnonzero(split == "train")), samples.subset(test)


def compared(
    frozen: Frozen, test: SampleSet, held_out: EmbeddingStore, given: argparse.Namespace,
    **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Fine-tune, and measure what came of it beside the frozen model."""
    if given.epochs_of_tuning:
        options["max_epochs"] = given.epochs_of_tuning
    tuned, seconds = frozen.tuned(**options)
    found = measured(frozen.model, tuned, test, held_out, given.work / "tuned.h5")
    tuning = tuned.tuning
    return {
        **options, "rows": len(frozen.samples), "kept": tuning.kept,
        **{f"{figure}_{who}": own["label"][figure]
           for figure in ("accuracy", "log_loss") for who, own in found.items()},
        "validation_frozen": tuning.frozen_loss, "validation_tuned": tuning.tuned_loss,
        "share": tuning.share, "epochs": len(tuning.epochs), "best_epoch": tuning.best_epoch,
        "tune_seconds": seconds,
    }  # fmt: skip


def few(
    sheet: Sheet, train: SampleSet, test: SampleSet, held_out: EmbeddingStore,
    given: argparse.Namespace,
) -> None:  # fmt: skip
    """Draw few rows of each class: what is kept must not be worse than the frozen model."""
    labels = np.asarray(train.columns["label"])
    gains = []
    for draw in range(given.draws):
        random = np.random.default_rng(draw)
        rows = [
            random.permutation(np.flatnonzero(labels == one))[:FEW] for one in np.unique(labels)
        ]
        own = train.subset(np.sort(np.concatenate(rows)))
        frozen = Frozen.of(own, BACKBONE, given.work / "few.h5", OPTIONS)
        row = compared(frozen, test, held_out, given)
        sheet.add(draw=draw, **row)
        print(sheet.rows[-1], file=sys.stderr, flush=True)
        gains.append(row["accuracy_kept"] - row["accuracy_frozen"])
    sheet.judge(f"accuracy, kept - frozen, {FEW} a class", gains, 0)
    sheet.judge("the same, worst draw", [min(gains)], 0)
