"""The loops that `tuning_peers.py` compares with, each in a process of its own.

    python benchmarks/tuning_loops.py plain LIST.csv --target 0.9 --limit 600

trains on the rows of a table with the columns path, label and split, measures on its test
rows after each epoch, stops once it reaches the target or the limit, and prints one JSON
object. The clock runs while it trains: imports, the network and the measuring are not counted.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms

from pipeline import load_backbone
from pipeline.backbones import Backbone, Cut

SIZE, BATCH, WORKERS, SMOOTHING = 128, 64, 2, 0.1
LR, HEAD_LR = 3e-4, 3e-3


@dataclass
class Task:
    """What every loop is given, and what it has reached."""

    rows: list[dict[str, str]]
    epochs: int
    target: float
    limit: float

    def __post_init__(self) -> None:
        self.reached: list[tuple[float, float]] = []

    @cached_property
    def backbone(self) -> Backbone:
        """Load the network that all start with."""
        return load_backbone("efficientnet_lite0", image_size=SIZE, resize="squash")

    @cached_property
    def classes(self) -> list[str]:
        """Name the classes."""
        return sorted({row["label"] for row in self.rows})

    def part(self, name: str) -> list[tuple[str, int]]:
        """List path and code of the rows of a part."""
        own = [row for row in self.rows if row["split"] == name]
        return [(row["path"], self.classes.index(row["label"])) for row in own]

    def network(self) -> nn.Sequential:
        """Put a new linear head on the network."""
        module = self.backbone.network.module
        width = self.backbone.layers["features"].width
        return nn.Sequential(module, nn.Flatten(), nn.Linear(width, len(self.classes)))

    def tell(self, seconds: float, accuracy: float) -> bool:
        """Write an epoch down; say whether it is enough."""
        self.reached.append((seconds, accuracy))
        return accuracy >= self.target or seconds >= self.limit


@dataclass
class _Pictures:
    """A data set as torch wants it."""

    listed: list[tuple[str, int]]
    transform: Any

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        path, code = self.listed[row]
        return self.transform(Image.open(path).convert("RGB")), code


def plain(task: Task) -> None:
    """Train all layers, as everybody does."""
    module = task.network()
    _trained(task, module, list(module[0].parameters()), frozen_statistics=False)


def top(task: Task) -> None:
    """Train the two blocks that we train, the rest frozen."""
    cut = Cut(task.backbone, ["features"], 2)
    module = task.network()
    for name, parameter in module[0].named_parameters():
        parameter.requires_grad_(name in cut.trained)
    chosen = [parameter for parameter in module[0].parameters() if parameter.requires_grad]
    _trained(task, module, chosen, frozen_statistics=True)


def _trained(
    task: Task, module: nn.Sequential, body: list[nn.Parameter], *, frozen_statistics: bool
) -> None:
    preprocess = task.backbone.preprocess
    last = [transforms.ToTensor(), transforms.Normalize(preprocess.mean, preprocess.std)]
    augmented = [
        transforms.RandomResizedCrop(SIZE, scale=(0.72, 1.0), ratio=(0.85, 1.18)),
        transforms.RandomHorizontalFlip(),
    ]
    loader = DataLoader(
        _Pictures(task.part("train"), transforms.Compose([*augmented, *last])), BATCH,
        shuffle=True, num_workers=WORKERS,
    )  # fmt: skip
    clean = transforms.Compose([transforms.Resize((SIZE, SIZE)), *last])
    test = DataLoader(_Pictures(task.part("test"), clean), 256, num_workers=WORKERS)
    groups = [{"params": body, "lr": LR}, {"params": module[2].parameters(), "lr": HEAD_LR}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [LR, HEAD_LR], total_steps=task.epochs * len(loader)
    )
    loss, seconds = nn.CrossEntropyLoss(label_smoothing=SMOOTHING), 0.0
    for _ in range(task.epochs):
        began = time.perf_counter()
        module.train(not frozen_statistics)
        for pictures, codes in loader:
            optimizer.zero_grad()
            loss(module(pictures), codes).backward()
            optimizer.step()
            schedule.step()
        seconds += time.perf_counter() - began
        module.eval()
        with torch.inference_mode():
            right = [(module(x).argmax(dim=1) == y).float() for x, y in test]
        if task.tell(seconds, float(torch.cat(right).mean())):
            return


def fastai(task: Task) -> None:
    """Run fastai's ``fine_tune``: one epoch of the head alone, then all layers."""
    try:
        from fastai.vision import all as fast
    except ImportError:
        raise SystemExit("fastai is not installed") from None
    import pandas

    preprocess = task.backbone.preprocess
    frame = pandas.DataFrame(task.rows)
    frame["is_test"] = frame["split"] == "test"
    block = fast.DataBlock(
        (fast.ImageBlock, fast.CategoryBlock), get_x=fast.ColReader("path"),
        get_y=fast.ColReader("label"), splitter=fast.ColSplitter("is_test"),
        item_tfms=fast.Resize(SIZE, method="squash"),
        batch_tfms=[
            *fast.aug_transforms(max_rotate=0, max_zoom=1.18, max_lighting=0, max_warp=0),
            fast.Normalize.from_stats(preprocess.mean, preprocess.std),
        ],
    )  # fmt: skip
    loaders = block.dataloaders(frame, bs=BATCH, num_workers=WORKERS)

    class Clock(fast.Callback):
        seconds = 0.0
        order = 90  # behind the Recorder

        def before_train(self) -> None:
            self.began = time.perf_counter()

        def after_train(self) -> None:
            Clock.seconds += time.perf_counter() - self.began

        def after_epoch(self) -> None:
            if task.tell(Clock.seconds, float(self.recorder.values[-1][-1])):
                raise fast.CancelFitException

    module = task.network()
    learner = fast.Learner(
        loaders, module, fast.LabelSmoothingCrossEntropy(), metrics=fast.accuracy, cbs=Clock,
        splitter=lambda own: [fast.params(own[0]), fast.params(own[2])],
    )  # fmt: skip
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(max(1, task.epochs - 1))


LOOPS = {loop.__name__: loop for loop in (plain, top, fastai)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("table", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--target", type=float, default=1.0)
    parser.add_argument("--limit", type=float, default=600)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    with given.table.open(newline="") as file:
        task = Task(list(csv.DictReader(file)), given.epochs, given.target, given.limit)
    LOOPS[given.loop](task)
    print(json.dumps({"reached": task.reached}))


if __name__ == "__main__":
    main()
