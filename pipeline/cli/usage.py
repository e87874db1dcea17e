"""What is wrong with a command line, in a sentence, with the nearest thing that is right."""

from __future__ import annotations

from cyclopts import CycloptsError, MissingArgumentError, UnknownOptionError, UnusedCliTokensError

from pipeline.errors import nearest

__all__ = ["explain"]

_CALLED_ELSEWHERE = {
    "--arch": "--backbone",
    "--batch": "--batch-size",
    "--epochs": "--max-epochs",
    "--img-size": "--image-size",
    "--imgsz": "--image-size",
    "--model": "--backbone",
    "--output": "--out",
    "--output-dir": "--out",
    "--project": "--out",
    "--size": "--image-size",
    "--test-size": "--test-fraction",
}
"""What other programs call our flags. Suggested, never accepted: one flag has one name."""


def explain(error: CycloptsError) -> str:
    """Say what is wrong with a command line, and where its help stands."""
    command = " ".join(["pipeline", *(error.command_chain or ())])
    return f"{_what(error, command)} See: {command} --help"


def _what(error: CycloptsError, command: str) -> str:
    if isinstance(error, UnknownOptionError):
        flag = (error.token.keyword or error.token.value).partition("=")[0]
        return f"unknown option {flag} for `{command}`.{_hint(flag, error)}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return _missing(error, error.argument.name, command)
    if isinstance(error, UnusedCliTokensError):
        return f"`{command}` takes nothing more, but got: {' '.join(error.unused_tokens or ())}."
    text, token = str(error), getattr(error, "token", None)
    if token is not None and token.source not in ("", "cli") and token.source not in text:
        text += f" It stands in {token.source}."
    return text[:1].lower() + text[1:]


def _hint(flag: str, error: UnknownOptionError) -> str:
    names = [name for argument in error.argument_collection for name in argument.names]
    if flag.removeprefix("--").upper() in names:
        return f" {flag.removeprefix('--').upper()} is given by its place, without a flag."
    flags = [name.removeprefix("--") for name in names if name.startswith("--")]
    guess = _CALLED_ELSEWHERE.get(flag, "").removeprefix("--")
    if guess not in flags:
        guess = nearest(flag.removeprefix("--"), flags) or ""
    return f" Did you mean --{guess}?" if guess else ""


def _missing(error: MissingArgumentError, name: str, command: str) -> str:
    for flag in error.unused_tokens or ():
        if _CALLED_ELSEWHERE.get(flag.partition("=")[0]) == name:
            return f"unknown option {flag} for `{command}`. Did you mean {name}?"
    what = f"a value after {name}" if error.keyword else name
    return f"`{command}` needs {what}: {_meaning(name, error)}"


def _meaning(name: str, error: CycloptsError) -> str:
    """Read what the manual says of an argument."""
    documented = error.app.assemble_argument_collection(parse_docstring=True) if error.app else ()
    helps = [argument.parameter.help or "" for argument in documented if argument.name == name]
    return " ".join("".join(helps).partition("[default:")[0].split())
