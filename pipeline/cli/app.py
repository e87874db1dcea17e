"""The command line: one app, its commands imported when they are called.

Standard output is data, standard error is talk. Exit: 0 done, 1 an error that the user can
mend, 2 a wrong command line, 70 a bug of ours, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from cyclopts import App, Parameter, convert
from cyclopts.config import Dict

from pipeline.cli.talk import say, start_talking
from pipeline.errors import InputError, PipelineError, UnknownNameError
from pipeline.version import __version__

__all__ = ["app", "main"]

_USER, _BUG, _INTERRUPTED = 1, 70, 130


def _strict(type_: Any, tokens: Sequence[Any]) -> Any:
    """Convert as usual, but never round: ``--image-size 3.5`` is no whole number."""
    if type_ is int or int in get_args(type_):
        for token in tokens:
            if not token.value.removeprefix("-").isdigit():
                raise ValueError(f"{token.value!r} is not a whole number.")
    return convert(type_, tokens)


app = App(
    name="pipeline",
    help="Transfer learning for a folder of data, a few labels and no time.",
    help_format="plaintext",
    help_formatter="default" if sys.stdout.isatty() else "plain",
    version=f"transfer-pipeline {__version__}",
    default_parameter=Parameter(negative=(), converter=_strict),
    error_formatter=lambda error: f"pipeline: {error}",
    result_action="return_value",
)

_COMMANDS = {
    "run": ("running", "The whole job: a folder in, a model and its figures out."),
    "embed": ("embedding", "Run a frozen backbone once and cache the embeddings of many layers."),
    "train": ("training", "Fuse cached layers and train a head on them."),
    "predict": ("prediction", "Predict new inputs with a trained model."),
    "evaluate": ("prediction", "Measure a model on labelled inputs (others call it val)."),
    "backbones": ("showing", "List the backbones."),
    "info": ("showing", "Say what a cache or a model file holds."),
}

for _name, (_module, _help) in _COMMANDS.items():
    app.command(f"pipeline.cli.{_module}:{_name}", name=_name, help=_help)


_TABLES = ("embed", "train")


def _read_config(arguments: Sequence[str]) -> None:
    """Let the file behind ``--config`` answer for flags that are not given.

    Raises
    ------
    InputError
        When it is no TOML, or holds a table that no command reads.
    """
    places = [place for place, word in enumerate(arguments) if word.split("=")[0] == "--config"]
    if not places:
        return
    _, equals, value = arguments[places[0]].partition("=")
    path = Path(value if equals else "".join(arguments[places[0] + 1 : places[0] + 2]))
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a configuration: {error}. Give a TOML file with the "
            "tables [embed] and [train]."
        ) from None
    for name in tables:
        if name not in _TABLES:
            raise UnknownNameError(f"table in {path}", name, _TABLES)
    app["run"].config = [
        Dict(tables.get(name, {}), use_commands_as_keys=False, source=str(path)) for name in _TABLES
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code."""
    start_talking()
    debug = os.environ.get("PIPELINE_DEBUG") == "1"
    try:
        _read_config(sys.argv[1:] if arguments is None else arguments)
        result = app(arguments)
    except PipelineError as error:
        if debug:
            raise
        say(f"pipeline: {error}")
        return _USER
    except KeyboardInterrupt:
        say("pipeline: interrupted. The same command goes on where it stopped.")
        return _INTERRUPTED
    except BrokenPipeError:  # `pipeline backbones | head` is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        say(
            f"pipeline: a bug of ours: {type(error).__name__}: {error}\n"
            "Please report it, with the traceback that PIPELINE_DEBUG=1 shows."
        )
        return _BUG
    return result if isinstance(result, int) else 0
