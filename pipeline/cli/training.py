"""``pipeline train``: stage 2 from the command line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pipeline.cli.comparison import say_comparison
from pipeline.cli.talk import say, show_json, show_line
from pipeline.config import TrainOptions
from pipeline.results import headline, interval, results_json

if TYPE_CHECKING:
    from pipeline.results import TargetResults

__all__ = ["say_doubts", "show_figures", "train"]


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
    say_comparison(trained)
    if json:
        show_json(results_json(trained.results, time.perf_counter() - began))
        return 0
    say_doubts(trained.results, options.seed)
    say(f"next: pipeline predict {model} NEW")
    show_figures(trained.results, model)
    return 0


_CALLED = {"cv": "cross-validated", "loo": "leave-one-out"}


def say_doubts(results: dict[str, TargetResults], seed: int) -> None:
    """Say what each figure stands on: held-out rows, seed, majority class, 95 % interval."""
    for name, found in results.items():
        about = f"{name}: " if len(results) > 1 else ""
        say(f"{about}{_doubts(found, seed)}")


def _doubts(results: TargetResults, seed: int) -> str:
    if not results.n_test:
        called, _, value = _inner_figure(results)
        what = "nothing could be measured" if value is None else f"the figure is {called}"
        return f"no rows were held out: {what}"
    parts = [f"{results.n_test} held-out rows", f"seed {seed}"]
    accuracy, majority = results.figures.get("accuracy"), results.figures.get("majority")
    if accuracy is not None and majority is not None:
        low, high = interval(accuracy, results.n_test)
        parts += [f"majority class {majority:.3f}", f"95 % interval {low:.3f} to {high:.3f}"]
    return ", ".join(parts)


def show_figures(results: dict[str, TargetResults], path: Path) -> None:
    """Write the lines that end ``run`` and ``train``: the first target's is the last."""
    for name, found in reversed(results.items()):
        target = f"{name} " if len(results) > 1 else ""
        show_line(f"{target}{_figure(found)}  {path}")


def _figure(results: TargetResults) -> str:
    """Give the held-out figure, else that of the inner comparison, called so, else nan."""
    name = headline(results.kind)
    value, called = results.figures.get(name), ""
    if value is None:
        called, name, value = _inner_figure(results)
    return f"{name} nan" if value is None else f"{called} {name} {value:.3f}".lstrip()


def _inner_figure(results: TargetResults) -> tuple[str, str, float | None]:
    """Give how the winner was scored on the training rows, by which figure, and the figure."""
    name, best = headline(results.kind), results.fusions[0]
    name = name if name in best.score else next(iter(best.score), name)
    return _CALLED[best.by], name, best.score.get(name)
