"""The command line: one app, its commands imported when they are called.

Standard output is data, standard error is talk. Exit: 0 done, 1 an error that the user can
mend, 2 a wrong command line, 70 a bug of ours, 130 interrupted.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

from cyclopts import App, CycloptsError, Parameter, convert

from pipeline.cli.configuration import answer_from_file
from pipeline.cli.manual import Manual
from pipeline.cli.talk import INTERRUPTED, say, talking
from pipeline.cli.usage import explain
from pipeline.errors import PipelineError
from pipeline.version import __version__

__all__ = ["app", "main"]

_DONE, _USER, _USAGE, _BUG = 0, 1, 2, 70


def _strict(type_: Any, tokens: Sequence[Any]) -> Any:
    """Convert as usual, but never round: ``--image-size 3.5`` is no whole number."""
    if type_ is int or int in get_args(type_):
        for token in tokens:
            if not token.value.removeprefix("-").isdigit():
                raise ValueError(f"{token.value!r} is not a whole number.")
    return convert(type_, tokens)


app = App(
    name="pipeline",
    help=(
        "Transfer learning for a folder of data, a few labels and no time.\n\n"
        "Begin with: pipeline run FOLDER --out out, where FOLDER has one subfolder per class."
    ),
    help_format="plaintext",
    help_formatter=Manual(),
    version=f"transfer-pipeline {__version__}",
    default_parameter=Parameter(negative=(), converter=_strict),
    config=answer_from_file,
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
)
app["--help"].help = "Show this page, or that of a command."
app["--version"].help = "Show the version."

_COMMANDS = {
    "run": (
        "running",
        "Do the whole job: a folder in, a model and its figures out.\n\n"
        "The same command again continues where it stopped.",
    ),
    "embed": (
        "embedding",
        "Run a frozen backbone once and cache the embeddings of many layers.\n\n"
        "The same command again embeds what is new and nothing else.",
    ),
    "train": ("training", "Fuse cached layers and train a head on them."),
    "finetune": (
        "finetuning",
        "Train the top blocks of a model's network end to end.\n\n"
        "The frozen network is kept where the tuned one is not better on rows that neither has "
        "learnt from. The same command again goes on where a killed one stopped; Ctrl-C keeps "
        "the best so far.",
    ),
    "predict": ("prediction", "Predict new inputs with a trained model."),
    "evaluate": ("prediction", "Measure a model on labelled inputs (others call it val)."),
    "backbones": ("showing", "List the backbones."),
    "info": ("showing", "Say what a cache or a model file holds."),
    "verify": ("verifying", "Check every byte of a cache or of a model file."),
}
"""Module and description: known before the module, and what it needs, is imported."""

_CALLED_ELSEWHERE = {
    "embed": ["extract", "features"],
    "train": ["fit"],
    "finetune": ["tune", "fine-tune"],
    "predict": ["classify", "infer"],
    "evaluate": ["val", "validate", "test", "score"],
    "backbones": ["models"],
    "info": ["show"],
    "verify": ["check", "fsck", "repair"],
}
"""What other programs call our commands: suggested, never accepted."""

for _place, (_name, (_module, _summary)) in enumerate(_COMMANDS.items()):
    app.command(
        f"pipeline.cli.{_module}:{_name}",
        name=_name,
        help=_summary,
        sort_key=_place,
        synonym=_CALLED_ELSEWHERE.get(_name),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with talking(), _stopped_like_by_hand():
            result = app(words)
        sys.stdout.flush()
    except CycloptsError as error:
        return _end(_USAGE, explain(error))
    except PipelineError as error:
        return _end(_USER, *error.lines)
    except KeyboardInterrupt:
        return _end(INTERRUPTED, _interrupted(words))
    except BrokenPipeError:  # `pipeline backbones | head` is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _DONE
    except OSError as error:
        return _end(_USER, _refused_by_the_system(error))
    except Exception as error:
        return _end(_BUG, *_bug(error))
    return result if isinstance(result, int) else _DONE


@contextmanager
def _stopped_like_by_hand() -> Iterator[None]:
    """Take SIGTERM, which a batch system sends, for Ctrl-C: what is finished is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(code: int, message: str, *more: str) -> int:
    """End with one message; the traceback only for those who ask for it."""
    if os.environ.get("PIPELINE_DEBUG") == "1":
        traceback.print_exc()
    say(f"pipeline: {message}", *more)
    return code


def _interrupted(words: Sequence[str]) -> str:
    kept = {
        "run": "What is embedded is kept",
        "embed": "What is embedded is kept",
        "finetune": "What is finished is kept",
    }.get(words[0] if words else "")
    if kept:
        return f"interrupted. {kept}; to go on: {shlex.join(['pipeline', *words])}"
    return "interrupted. Nothing was written."


def _refused_by_the_system(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}. Look after that file or disk, and try again."


def _bug(error: Exception) -> tuple[str, str]:
    return (
        f"a bug of ours: {type(error).__name__}: {error}",
        "Please report it, with the traceback that PIPELINE_DEBUG=1 shows.",
    )
