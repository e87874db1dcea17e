"""``pipeline run``: the whole job from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.cli.comparison import say_comparison
from pipeline.cli.embedding import in_words, understood
from pipeline.cli.finetuning import exit_code, say_outcome
from pipeline.cli.talk import say, show_json
from pipeline.cli.training import say_doubts, show_figures
from pipeline.config import EmbedOptions, TrainOptions, TuneOptions

__all__ = ["run"]


def run(
    source: Path,
    /,
    *,
    out: Path,
    config: Path | None = None,
    overwrite: bool = False,
    follow_outside: bool = False,
    embed: Annotated[EmbedOptions, Parameter(name="*")] = EmbedOptions(),
    train: Annotated[TrainOptions, Parameter(name="*")] = TrainOptions(),
    tune: Annotated[TuneOptions, Parameter(name="*")] = TuneOptions(),
    json: bool = False,
) -> int:
    """Do the whole job: a folder in, a model and its figures out.

    The same command again continues where it stopped.

    Parameters
    ----------
    source
        A folder with one subfolder per class, or a table with the columns path and label.
    out
        The folder to write into.
    config
        A TOML file with the tables [embed], [train] and [finetune], their keys named like the
        flags, as every run writes one. A flag on the command line counts more. [default: none]
    overwrite
        Take the place of a run of another configuration; its embeddings are kept if they fit.
    follow_outside
        Also read what paths and links of the source lead to outside its folder.
    json
        Print one JSON object on standard output.
    """
    samples = understood(source, follow_outside=follow_outside)

    from pipeline.flow import run as run_flow

    finished = run_flow(samples, out, embed, train, tune, overwrite=overwrite, progress=True)
    say(in_words(finished.embedding, f"{out / 'failed.csv'} names them"))
    say_comparison(finished.model)
    if finished.outcome is not None:
        say_outcome(finished.outcome, finished.path)
    if json:
        show_json(finished.to_json())
        return 0 if finished.outcome is None else exit_code(finished.outcome)
    say_doubts(finished.model.results, train.seed)
    say(f"next: pipeline predict {finished.path} NEW")
    show_figures(finished.model.results, finished.path)
    return 0 if finished.outcome is None else exit_code(finished.outcome)
