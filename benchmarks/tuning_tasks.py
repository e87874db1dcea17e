"""Joint fine-tuning of many tasks against one each; `many_tasks.py` compares frozen models."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from accuracy import OPTIONS, digits
from findings import Sheet, timed
from stages import Figures, measured

from pipeline import EmbeddingStore, SampleSet, TransferModel, embed, finetune, train
from pipeline.config import TrainOptions

BACKBONE = "efficientnet_lite0"
TASKS = ("digit", "parity", "ink")
MISSING = 0.5
"""Share of the labels of each task that is unknown, at random, among the training rows."""


def tasks(given: argparse.Namespace) -> Sheet:
    """Compare one trunk for three targets with three trunks, each on its own labelled rows."""
    learning, test = _digits(given)
    sheet = Sheet(f"digits, {len(learning):,} train, {len(test):,} test: {', '.join(TASKS)}, "
                  f"{MISSING:.0%} of the labels missing for each")  # fmt: skip
    with (
        embed(learning, BACKBONE, given.work / "digits.h5", options=OPTIONS) as store,
        embed(test, BACKBONE, given.work / "digits-test.h5", options=OPTIONS) as held_out,
    ):
        alone = {name: train(store, _options(name)) for name in TASKS}
        _tuned(sheet, train(store, _options(TASKS)), alone, learning, test, held_out, given)
    return sheet


def _tuned(
    sheet: Sheet, together: TransferModel, alone: dict[str, TransferModel], learning: SampleSet,
    test: SampleSet, held_out: EmbeddingStore, given: argparse.Namespace,
) -> None:  # fmt: skip
    """Fine-tune one trunk for all, in both weightings, and one for each.

    What was tuned is compared, and what was kept: there the frozen model may stand on one side.
    """
    chosen = {"blocks": 2, "max_epochs": given.epochs_of_tuning or 6}

    def both(model: TransferModel, **options: Any) -> dict[str, Figures]:
        tuned, seconds = timed(lambda: finetune(model, learning, **chosen, **options))
        found = measured(model, tuned, test, held_out, given.work / "tuned.h5")
        sheet.add(
            tuned=" + ".join(model.heads), **options, kept=tuned.tuning.kept,
            epochs=len(tuned.tuning.epochs), seconds=seconds,
        )  # fmt: skip
        return found

    alone_by = {name: both(model) for name, model in alone.items()}
    for weighting in ("equal", "uncertainty"):
        joint = both(together, weighting=weighting)
        for who in ("tuned", "kept"):
            own = {name: found[who][name] for name, found in alone_by.items()}
            _compare(sheet, f"{who}, {weighting}", joint[who], own)


def _compare(sheet: Sheet, what: str, joint: Figures, alone: Figures) -> None:
    for name in TASKS:
        for figure in joint[name]:
            sheet.add(of=what, task=name, figure=figure, together=joint[name][figure],
                      alone=alone[name][figure])  # fmt: skip
        figure = next(iter(joint[name]))
        gain = joint[name][figure] - alone[name][figure]
        sheet.judge(f"{what}: {figure} of {name}, together - alone", [gain])


def _options(target: Any) -> TrainOptions:
    return TrainOptions(target=target, target_kind=("ink=number",), test_fraction=0)


def _digits(given: argparse.Namespace) -> tuple[SampleSet, SampleSet]:
    """Give scikit-learn's digits with three tasks; labels are missing among the first 1,000."""
    samples = digits()
    codes, split = (np.asarray(samples.columns[name]) for name in ("label", "split"))
    ink = [float(np.mean(pixels)) for pixels in samples.sources]
    columns: dict[str, list[Any]] = {
        "digit": codes.tolist(),
        "parity": [("even", "odd")[int(code) % 2] for code in codes],
        "ink": ink,
    }
    random = np.random.default_rng(0)
    for name, cells in columns.items():
        unknown = (split == "train") & (random.random(len(cells)) < MISSING)
        columns[name] = [None if lost else c for c, lost in zip(cells, unknown, strict=True)]
    whole = SampleSet.from_list(samples.sources, columns, ids=samples.ids)
    first = np.flatnonzero(split == "train")[: given.digit_rows]
    known = np.any([[cell is not None for cell in columns[name]] for name in columns], axis=0)
    return whole.subset(first[known[first]]), whole.subset(np.flatnonzero(split == "test"))
