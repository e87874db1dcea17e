"""The command line: one app, its commands imported when they are called.

Standard output is data, standard error is talk. Exit: 0 done, 1 an error that the user can
mend, 2 a wrong command line, 70 a bug of ours, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, Parameter

from pipeline.errors import PipelineError
from pipeline.version import __version__

__all__ = ["app", "main"]

_BUG = 70
_INTERRUPTED = 130

app = App(
    name="pipeline",
    help="Transfer learning for a folder of data, a few labels and no time.",
    version=f"transfer-pipeline {__version__}",
    default_parameter=Parameter(negative=()),
    help_formatter="default" if sys.stdout.isatty() else "plain",
    error_formatter=lambda error: f"pipeline: {error}",
    result_action="return_value",
)

_COMMANDS = {
    "run": ("running", "The whole job: a folder in, a model and its figures out."),
    "embed": ("embedding", "Run a frozen backbone once and cache the embeddings of many layers."),
    "train": ("training", "Fuse cached layers and train a head on them."),
    "predict": ("prediction", "Predict new inputs with a trained model."),
    "evaluate": ("prediction", "Measure a model on labelled inputs (what others call val)."),
    "backbones": ("showing", "List the backbones."),
    "info": ("showing", "Say what a cache or a model file holds."),
}

for _name, (_module, _help) in _COMMANDS.items():
    app.command(f"pipeline.cli.{_module}:{_name}", name=_name, help=_help)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code."""
    from pipeline.cli.talk import say, start_talking

    start_talking()
    try:
        result = app(arguments, exit_on_error=True, print_error=True)
    except PipelineError as error:
        if os.environ.get("PIPELINE_DEBUG") == "1":
            raise
        say(f"pipeline: {error}")
        return 1
    except KeyboardInterrupt:
        say("pipeline: interrupted. The same command goes on where it stopped.")
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("PIPELINE_DEBUG") == "1":
            raise
        say(
            f"pipeline: a bug of ours: {type(error).__name__}: {error}\n"
            "Please report it, with the traceback that PIPELINE_DEBUG=1 shows."
        )
        return _BUG
    return result if isinstance(result, int) else 0
