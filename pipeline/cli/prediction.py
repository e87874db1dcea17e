"""``pipeline predict`` and ``pipeline evaluate``: a trained model at work."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pipeline.cli.embedding import understood
from pipeline.cli.talk import say, show_json, show_line
from pipeline.config import OnBadInput
from pipeline.errors import OptionError
from pipeline.results import headline, results_json

__all__ = ["evaluate", "predict"]


def predict(
    model: Path,
    source: tuple[Path, ...],
    /,
    *,
    out: Path = Path("predictions.csv"),
    proba: bool = False,
    min_confidence: float | None = None,
    on_bad_input: OnBadInput = "skip",
    max_pixels: int | None = None,
    follow_outside: bool = False,
    json: bool = False,
) -> int:
    """Predict new inputs with a trained model.

    Parameters
    ----------
    model
        A model file, from train or run.
    source
        A folder, a table, a list, or one or several files.
    out
        The CSV file to write: one row for each input, in order.
    proba
        Add a column with the probability of each class.
    min_confidence
        Leave the cell empty where the top probability is lower. [default: always predict]
    on_bad_input
        skip leaves the cell of an unreadable file empty; fail names them all and stops.
    max_pixels
        Larger pictures are refused, before any memory is asked for. [default: 178,956,970]
    follow_outside
        Also read what paths and links of the source lead to outside its folder.
    json
        Print one JSON object on standard output.
    """
    from pipeline.model import TransferModel, predictions_table

    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise OptionError(
            f"min-confidence is {min_confidence}, but must be a probability from 0 to 1."
        )
    loaded = TransferModel.load(model)
    samples = understood(source, follow_outside=follow_outside)
    table = predictions_table(
        loaded, samples, proba=proba, min_confidence=min_confidence,
        on_bad_input=on_bad_input, max_pixels=max_pixels, progress=True,
    )  # fmt: skip
    table.write(out)
    for name, reason in table.failed.items():
        say(f"no prediction for {name}: {reason}")
    unsure = f", {table.withheld} left empty: not sure enough" if table.withheld else ""
    say(f"{table.answered} predictions, {len(table.failed)} inputs failed{unsure}")
    if json:
        show_json({"rows": len(samples), "failed": len(table.failed), "out": str(out)})
    else:
        show_line(str(out))
    return 0


def evaluate(
    model: Path,
    source: Path,
    /,
    *,
    include_training: bool = False,
    max_pixels: int | None = None,
    follow_outside: bool = False,
    json: bool = False,
) -> int:
    """Measure a model on labelled inputs (others call it val).

    Rows whose content was trained on are left out and counted.

    Parameters
    ----------
    model
        A model file, from train or run.
    source
        Labelled inputs, or a cache of them.
    include_training
        Measure on the rows that were trained on, too.
    max_pixels
        Larger pictures are refused, before any memory is asked for. [default: 178,956,970]
    follow_outside
        Also read what paths and links of the source lead to outside its folder.
    json
        Print one JSON object on standard output.
    """
    from pipeline.model import TransferModel
    from pipeline.training import evaluate as evaluate_stage

    began = time.perf_counter()
    loaded = TransferModel.load(model)
    found = evaluate_stage(
        loaded, _data(source, follow_outside), include_training=include_training,
        max_pixels=max_pixels, progress=True,
    )  # fmt: skip
    for name, reason in found.failed.items():
        say(f"not measured: {name}: {reason}")
    if found.left_out:
        say(f"{found.left_out} rows were trained on, and left out")
    if json:
        seconds = time.perf_counter() - began
        show_json(results_json(found.results, seconds) | {"left_out": found.left_out})
        return 0
    for name, results in found.results.items():
        figure = headline(results.kind)
        value = results.figures[figure]
        shown = "nan" if value is None else f"{value:.3f}"
        show_line(f"{name} {figure} {shown}  {results.n_test} rows")
    return 0


def _data(source: Path, follow_outside: bool) -> Any:
    """Open a cache as a store; take anything else as a source of inputs."""
    from pipeline.cache import EmbeddingStore, is_cache

    if is_cache(source):
        return EmbeddingStore.open(source)
    return understood(source, follow_outside=follow_outside)
