"""Epochs of fine-tuning, without and with the boundary cache."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from findings import Sheet, timed
from photos import write_photos
from PIL import Image
from stages import Frozen

from pipeline import SampleSet, load_backbone
from pipeline.backbones import BACKBONES, Backbone, Cut, resolve_precision
from pipeline.config import EmbedOptions
from pipeline.finetuning.training import scores_of

PHOTOS = Path(tempfile.gettempdir()) / "transfer-pipeline-photos"
BATCH = 64
"""What ``auto`` takes from 1,000 rows on: the few rows here stand for many."""
RATE = 1e-4
"""Given, so that no training begins again with a lower one."""
SAME = 0.02
"""Most that two loss curves may differ; saying the mean costs 1. The cache holds float16."""


def epoch(given: argparse.Namespace) -> Sheet:
    """Compare an epoch that runs all blocks with one that reads the boundary cache.

    Both look at the same clean pictures in the same order (``views=1``). What counts is the
    training of an epoch: the pass over the validation rows that ends it is timed and taken
    off, since the bound 1 + p / (3 (1 - p)) knows nothing of it; the whole epoch stands beside.
    The first epoch of each run warms up, and of the others the median counts.
    """
    sheet = Sheet(f"an epoch without / with the boundary cache, {given.rows} pictures, batches of "
                  f"{BATCH}, {torch.get_num_threads()} threads")  # fmt: skip
    photos = write_photos(given.folder, given.rows)
    labels = _by_brightness(photos)
    for name, blocks in given.networks:
        backbone = load_backbone(name, weights="default" if name in BACKBONES else None)
        pictures = _as_arrays(photos, backbone)
        for source, inputs in (("arrays", pictures), ("JPEG files", photos)):
            ids = [f"{row:05d}" for row in range(len(photos))]
            samples = SampleSet.from_list(inputs, {"label": labels}, ids=ids)
            frozen = Frozen.of(samples, backbone, given.work / "epoch.h5",
                               EmbedOptions(precision="float32"), "concat", "ridge")  # fmt: skip
            turns = _take_turns(frozen, blocks, given)
            share = None
            if source == "arrays":
                share = _share_below(frozen, blocks, np.stack(pictures[:BATCH]), given.passes)
            _conclude(sheet, f"{name}, top {blocks}, {source}", turns, share)
    return sheet


@dataclass(frozen=True)
class Curve:
    """What is known of the epochs of one fine-tuning."""

    training: Sequence[float]
    validating: Sequence[float]
    losses: np.ndarray
    whole: float

    @property
    def seconds(self) -> float:
        """Training of an epoch."""
        return statistics.median(self.training[1:])

    @property
    def epoch(self) -> float:
        """An epoch with the pass over the validation rows."""
        return statistics.median(np.add(self.training, self.validating)[1:].tolist())


def _take_turns(frozen: Frozen, blocks: int, given: argparse.Namespace) -> dict[str, list[Curve]]:
    turns: dict[str, list[Curve]] = {"without": [], "with": []}
    for _ in range(given.repeats):
        for name, curves in turns.items():
            curves.append(_curve(frozen, blocks, given.epochs, no_cache=name == "without"))
    return turns


def _curve(frozen: Frozen, blocks: int, epochs: int, *, no_cache: bool) -> Curve:
    validating: list[float] = []

    def watched(*args: Any) -> Any:
        found, seconds = timed(lambda: scores_of(*args))
        validating.append(seconds)
        return found

    with mock.patch("pipeline.finetuning.training.scores_of", watched):
        tuned, whole = frozen.tuned(
            blocks=blocks, views=1, flip="no", max_epochs=epochs, batch_size=str(BATCH),
            no_boundary_cache=no_cache, lr=RATE,
        )  # fmt: skip
    log = [one.epoch for one in tuned.tuning.epochs]
    training = [one.seconds - own for one, own in zip(log, validating, strict=True)]
    losses = np.array([[one.loss, one.validation_loss] for one in log])
    return Curve(training, validating, losses, whole)


def _share_below(frozen: Frozen, blocks: int, pictures: np.ndarray, passes: int) -> float:
    """Time the forward pass up to the boundary, as a share of all of it.

    It is the network that is trained, by torch with the threads and the arithmetic of the
    training; a hook reads the clock where the boundary is passed.
    """
    (backbone,) = frozen.model.backbones.values()
    cut = Cut(backbone, [name.rpartition("/")[2] for name in frozen.model.layers], blocks)
    assert cut.entrance is not None
    passed: list[float] = []
    boundary = cut.module.get_submodule(cut.entrance.module)
    boundary.register_forward_hook(lambda *_: passed.append(time.perf_counter()))
    batch = torch.from_numpy(pictures)
    own = resolve_precision("auto", "cpu") == "bfloat16"
    shares = []
    for _ in range(passes + 1):
        began = time.perf_counter()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=own):
            cut(batch)
        shares.append((passed[-1] - began) / (time.perf_counter() - began))
    return statistics.median(shares[1:])


def _conclude(
    sheet: Sheet, what: str, turns: Mapping[str, Sequence[Curve]], share: float | None
) -> None:
    """Judge the ratio; against its bound where the share of the forward pass is all there is."""
    for name, curves in turns.items():
        sheet.add(
            of=what, cache=name, epochs=len(curves[0].training),
            train_seconds=statistics.median(one.seconds for one in curves),
            validation_seconds=statistics.median(t for one in curves for t in one.validating),
            epoch_seconds=statistics.median(one.epoch for one in curves),
            whole_seconds=statistics.median(one.whole for one in curves),
        )  # fmt: skip
    pairs = list(zip(turns["without"], turns["with"], strict=True))
    away = max(_difference(*pair) for pair in pairs)
    check = {"layers": 0, "of": "loss curves", "largest": away, "holds": away <= SAME}
    ratios = [a.seconds / b.seconds for a, b in pairs]
    sheet.judge(f"{what}: epoch without / with cache", ratios, unit="x", check=check)
    sheet.judge(f"{what}: the same with validation", [a.epoch / b.epoch for a, b in pairs],
                unit="x", check=check)  # fmt: skip
    if share is not None:
        bound = 1 + share / (3 * (1 - share))
        sheet.add(of=what, share_below=share, bound=bound)
        reached = [ratio / bound for ratio in ratios]
        sheet.judge(f"{what}: ratio / bound", reached, 0.85, check=check)
    sheet.judge(f"{what}: loss curves, largest difference", [away], SAME, at_most=True)


def _difference(a: Curve, b: Curve) -> float:
    """Compare the epochs that both have: the last ones may hang on the third digit."""
    both = min(len(a.losses), len(b.losses))
    return float(np.abs(a.losses[:both] - b.losses[:both]).max())


def _by_brightness(photos: Sequence[Path]) -> list[str]:
    """Give labels that can be learnt: quarters of the photos by their mean."""
    means = np.array([np.asarray(Image.open(path)).mean() for path in photos])
    return [f"quarter {rank * 4 // len(means)}" for rank in means.argsort().argsort()]


def _as_arrays(photos: Sequence[Path], backbone: Backbone) -> list[np.ndarray]:
    height, width = backbone.preprocess.image_size
    return [np.asarray(Image.open(path).resize((width, height))) for path in photos]
