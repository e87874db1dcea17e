"""Apart: a file of a stranger is read in a child process, with limits on time and memory.

The readers refuse what is hostile before they touch it; should one be outwitted after all,
the child ends, and the command says so.
"""

from __future__ import annotations

import builtins
import json
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from pipeline.errors import InputError, PipelineError

__all__ = ["read_apart"]

_MEMORY = 2 << 30
"""Bytes beyond the size of the file itself."""

_SECONDS, _BYTES_A_SECOND = 60, 20_000_000
"""Time for any file, and speed of the slowest disk."""


def read_apart(reader: Callable[[Path], dict[str, Any]], file: Path) -> dict[str, Any]:
    """Call a reader on a file in a child process, and give what it found.

    Parameters
    ----------
    reader : callable of Path to dict
        Its result is made of JSON values.
    file : Path

    Raises
    ------
    PipelineError
        What the reader raised; that there is no such file, or no end within the limits.
    """
    if not file.is_file():
        missing = "is a folder" if file.is_dir() else "does not exist"
        raise InputError(f"{file} {missing}. Give a cache or a model file.")
    if "fork" not in multiprocessing.get_all_start_methods():  # Windows
        return reader(file)
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    size = file.stat().st_size
    child = fork.Process(target=_read, args=(reader, file, size, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        found = ours.recv_bytes() if ours.poll(_SECONDS + size / _BYTES_A_SECOND) else b""
    except EOFError:  # it ended without a word
        found = b""
    child.kill()
    child.join()
    if not found:
        raise InputError(
            f"{file} could not be read within {_SECONDS + size // _BYTES_A_SECOND} seconds and "
            f"{(_MEMORY + size) >> 20} MB. It is damaged, or made to exhaust whoever reads it: "
            "do not use it."
        )
    told: dict[str, Any] = json.loads(found)
    if "error" in told:
        raise _told_error(told["error"])
    result: dict[str, Any] = told["found"]
    return result


def _told_error(told: dict[str, Any]) -> Exception:
    """Make the child's error again: ours, the system's, or a bug."""
    if told["kind"] == "ours":
        return InputError(told["message"])
    if told["kind"] == "system":
        return OSError(*told["arguments"])
    try:
        return cast("Exception", getattr(builtins, told["kind"])(told["message"]))
    except (AttributeError, TypeError):  # of a library, or made of more than a sentence
        return RuntimeError(f"{told['kind']}: {told['message']}")


def _read(
    reader: Callable[[Path], dict[str, Any]], file: Path, size: int, answer: Connection
) -> None:
    _limit_memory(_MEMORY + 2 * size)
    try:
        told: dict[str, Any] = {"found": reader(file)}
    except PipelineError as error:
        told = {"error": {"kind": "ours", "message": str(error)}}
    except MemoryError:
        os._exit(1)
    except Exception as error:
        told = {"error": _told(error)}
    answer.send_bytes(json.dumps(told).encode())


def _told(error: Exception) -> dict[str, Any]:
    if isinstance(error, OSError) and error.errno is not None:
        where = None if error.filename is None else str(error.filename)
        return {"kind": "system", "arguments": [error.errno, error.strerror, where]}
    return {"kind": type(error).__name__, "message": str(error)}


def _limit_memory(beyond: int) -> None:
    import resource

    statm = Path("/proc/self/statm")
    used = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
    resource.setrlimit(resource.RLIMIT_AS, (used + beyond, resource.RLIM_INFINITY))
