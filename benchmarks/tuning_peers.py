"""Time to an accuracy: our stages against a plain full loop and fastai's fine_tune."""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accuracy import OPTIONS
from findings import Sheet
from measuring import AbsentError
from PIL import Image
from stages import Frozen, measured
from tuning_accuracy import BACKBONE, parts

from pipeline import SampleSet, embed

LOOPS = Path(__file__).with_name("tuning_loops.py")
PEERS = ("plain", "top", "fastai")
TEST_ROWS = 2000

Reached = list[tuple[float, float]]
"""Seconds of training so far, and accuracy on the test rows then."""


def peers(given: argparse.Namespace) -> Sheet:
    """Compare the time until the test rows are as often right as by our tuned model.

    All read the same PNG files, at 128 px, squashed. Ours counts from nothing to what fine-tuning
    kept: network, embedding, search of the head, tuning. A peer counts its training alone, and
    is measured on the test rows after each epoch at no cost, so it may stop at the first epoch
    that happens to reach the goal.
    """
    given = argparse.Namespace(**vars(given) | {"test_rows": min(TEST_ROWS, given.test_rows)})
    train, test = (_as_files(part, given.work / name)
                   for part, name in zip(parts(given), ("train", "test"), strict=True))  # fmt: skip
    sheet = Sheet(f"Fashion-MNIST from files, {len(train):,} train, {len(test):,} test, 128 px, "
                  f"peers stopped after {given.limit:g} s")  # fmt: skip
    table = _listed(train, test, given.work / "files.csv")
    times: dict[str, list[float]] = {}
    stopped: set[str] = set()
    for turn in range(given.peer_repeats):
        frozen, tuned = _ours(train, test, given)
        sheet.add(turn=turn, who="ours, frozen", seconds=frozen[0], accuracy=frozen[1])
        sheet.add(turn=turn, who="ours, tuned", seconds=tuned[0], accuracy=tuned[1])
        goals = {"frozen": frozen, "tuned": tuned}
        for name in given.loops:
            try:
                reached = _peer(name, table, max(goals.values(), key=lambda g: g[1])[1], given)
            except AbsentError as reason:
                sheet.judge_absent(f"{name} / ours", str(reason))
                continue
            for epoch, (seconds, accuracy) in enumerate(reached, 1):
                sheet.add(turn=turn, who=name, epoch=epoch, seconds=seconds, accuracy=accuracy)
            for goal, (seconds, accuracy) in goals.items():
                needed = next((t for t, own in reached if own >= accuracy), None)
                if needed is None:
                    stopped.add(f"{name}, {goal}")
                ratio = (reached[-1][0] if needed is None else needed) / seconds
                times.setdefault(f"{name}, {goal}", []).append(ratio)
    for what, ratios in times.items():
        name, goal = what.split(", ")
        said = f"{name} / ours, until the accuracy of our {goal} model"
        sheet.judge(f"{said}{' (not reached: at least)' if what in stopped else ''}", ratios,
                    unit="x")  # fmt: skip
    return sheet


def _ours(
    train: SampleSet, test: SampleSet, given: argparse.Namespace
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Give seconds and test accuracy after stage 2, and after stage 3."""
    own = Frozen.of(train, BACKBONE, given.work / "peers.h5", OPTIONS)
    options = {"max_epochs": given.epochs_of_tuning} if given.epochs_of_tuning else {}
    tuned, seconds = own.tuned(**options)
    before = sum(own.seconds.values())
    with embed(test, BACKBONE, given.work / "peers-test.h5", options=OPTIONS) as held_out:
        found = measured(own.model, tuned, test, held_out, given.work / "tuned.h5")
    frozen, kept = (found[who]["label"]["accuracy"] for who in ("frozen", "kept"))
    return (before, frozen), (before + seconds, kept)


def _peer(name: str, table: Path, target: float, given: argparse.Namespace) -> Reached:
    command = [sys.executable, LOOPS, name, table, "--target", target, "--limit", given.limit]
    if given.epochs_of_tuning:
        command += ["--epochs", given.epochs_of_tuning]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if ended.returncode:
        raise AbsentError((ended.stderr.strip().splitlines() or [str(ended.returncode)])[-1])
    return [tuple(pair) for pair in json.loads(ended.stdout[ended.stdout.index("{") :])["reached"]]


def _as_files(samples: SampleSet, folder: Path) -> SampleSet:
    """Write the pictures as PNG, in the size they have."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{row:05d}.png" for row in range(len(samples))]
    for path, pixels in zip(paths, samples.sources, strict=True):
        Image.fromarray(np.asarray(pixels)).save(path)
    return SampleSet.from_list(paths, {"label": samples.columns["label"]}, ids=samples.ids)


def _listed(train: SampleSet, test: SampleSet, path: Path) -> Path:
    rows: list[Sequence[str]] = [("path", "label", "split")]
    for part, samples in (("train", train), ("test", test)):
        labels = samples.columns["label"]
        rows += [(str(p), str(n), part) for p, n in zip(samples.sources, labels, strict=True)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path
