"""``pipeline finetune``: stage 3 from the command line."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pipeline.cli.embedding import understood
from pipeline.cli.talk import INTERRUPTED, say, show_json
from pipeline.cli.training import show_figures
from pipeline.config import FinetuneOptions
from pipeline.errors import OptionError
from pipeline.results import headline

if TYPE_CHECKING:
    from pipeline.finetuning import Outcome

__all__ = ["exit_code", "finetune", "say_outcome"]


def finetune(
    model: Path,
    source: Path,
    model_out: Path,
    /,
    *,
    options: Annotated[FinetuneOptions, Parameter(name="*")] = FinetuneOptions(),
    follow_outside: bool = False,
    json: bool = False,
) -> int:
    """Train the top blocks of a model's network end to end.

    The frozen network is kept where the tuned one is not better on rows that neither has
    learnt from. The same command again goes on where a killed one stopped; Ctrl-C keeps the
    best so far.

    Parameters
    ----------
    model
        A model file, from train or run, with a linear head.
    source
        What it was trained on, with its labels.
    model_out
        The model file to write.
    follow_outside
        Also read what paths and links of the source lead to outside its folder.
    json
        Print one JSON object on standard output.
    """
    from pipeline.flow import tuned
    from pipeline.model import TransferModel

    if model_out.resolve() == model.resolve():
        raise OptionError(
            f"MODEL_OUT is {model_out}, the model to begin with, which a tuning that was stopped "
            "needs to go on. Write to another file."
        )
    began = time.perf_counter()
    loaded = TransferModel.load(model)
    samples = understood(source, follow_outside=follow_outside)
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    outcome = tuned(loaded, samples, **given, beside=model_out, progress=True)
    if json:
        show_json(outcome.to_json(time.perf_counter() - began))
        return exit_code(outcome)
    say_outcome(outcome, model_out)
    say(f"next: pipeline predict {model_out} NEW")
    show_figures(dict(outcome.kept), model_out)
    return exit_code(outcome)


def exit_code(outcome: Outcome) -> int:
    """Say that a tuning was stopped by hand, whose best so far is written."""
    tuning = outcome.backbone.tuning
    if not tuning.interrupted:
        return 0
    left = " and ".join(str(path) for path in tuning.traces.left())
    say(
        "interrupted: the best so far is written, and the same command goes on from there, with "
        f"the help of {left}: delete what you do not need"
    )
    return INTERRUPTED


def say_outcome(outcome: Outcome, path: Path) -> None:
    """Say what was kept and why, and both figures of every target."""
    tuning = outcome.backbone.tuning
    better = "better" if tuning.kept == "tuned" else "not better"
    say(
        f"{tuning.kept} is kept: on {len(tuning.validation_ids)} rows set aside the tuned network "
        f"is {better} beyond chance (loss {tuning.tuned_loss:.4f}, frozen "
        f"{tuning.frozen_loss:.4f})"
    )
    for name, frozen in outcome.frozen.items():
        figure = headline(frozen.kind)
        values = (found.figures[figure] for found in (frozen, outcome.tuned[name]))
        shown = ("nan" if value is None else f"{value:.3f}" for value in values)
        before, after = shown
        say(
            f"{name}: {figure} {before} frozen, {after} tuned, on {frozen.n_test} {outcome.rows} "
            "rows"
        )
    say(f"the epochs: {path}.log.csv, {path}.log.png")
