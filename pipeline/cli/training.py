"""``pipeline train``: stage 2 from the command line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pipeline.cli.talk import say, show_json, show_line
from pipeline.config import TrainOptions
from pipeline.results import headline, interval, results_json

if TYPE_CHECKING:
    from pipeline.results import TargetResults

__all__ = ["last_line", "say_doubts", "train"]


def train(
    cache: Path,
    model: Path,
    /,
    *,
    options: Annotated[TrainOptions, Parameter(name="*")] = TrainOptions(),
    layers: str = "all",
    json: bool = False,
) -> int:
    """Fuse cached layers and train a head on them.

    Parameters
    ----------
    cache
        A cache with labels, from embed.
    model
        The model file to write.
    layers
        Which cached layers to use: all, or names joined by commas.
    json
        Print one JSON object on standard output.
    """
    from pipeline.cache import EmbeddingStore
    from pipeline.training import train as train_stage

    began = time.perf_counter()
    with EmbeddingStore.open(cache) as store:
        trained = train_stage(store, options, layers=layers)
    trained.save(model)
    if json:
        show_json(results_json(trained.results, time.perf_counter() - began))
        return 0
    for results in trained.results.values():
        say_doubts(results, options.seed)
    say(f"next: pipeline predict {model} NEW")
    show_line(last_line(trained.results, model))
    return 0


def say_doubts(results: TargetResults, seed: int) -> None:
    """Say what the figure stands on: held-out rows, seed, majority class, 95 % interval."""
    if not results.n_test:
        say("no rows were held out: the figure is cross-validated on the training rows")
        return
    parts = [f"{results.n_test} held-out rows", f"seed {seed}"]
    accuracy, majority = results.figures.get("accuracy"), results.figures.get("majority")
    if accuracy is not None and majority is not None:
        low, high = interval(accuracy, results.n_test)
        parts += [f"majority class {majority:.3f}", f"95 % interval {low:.3f} to {high:.3f}"]
    say(", ".join(parts))


def last_line(results: dict[str, TargetResults], path: Path) -> str:
    """Give the lines that end ``run`` and ``train``: figure and path, the first target's last."""
    several = len(results) > 1
    lines = []
    for name, found in results.items():
        figure = headline(found.kind)
        value, called = found.figures.get(figure), figure
        if value is None and found.fusions:
            value, called = found.fusions[0].score.get(figure), f"cross-validated {figure}"
        shown = "nan" if value is None else f"{value:.3f}"
        lines.append(f"{name + ' ' if several else ''}{called} {shown}  {path}")
    return "\n".join(reversed(lines))
