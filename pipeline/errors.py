"""Every error of the package: what we got, what is accepted, what to do.

::

    PipelineError
    +-- InputError              a source, a table or a label we cannot work with
    +-- UnknownNameError        a name that no registry knows, with its nearest neighbour
    +-- OptionError             an option that does not apply, or a value outside its range
    +-- BackboneError           a network or a weights file that cannot serve
    +-- CacheError              a cache that cannot be read or written
    |   +-- CacheMismatchError  a cache of another spec
    |   +-- CacheDamagedError   a cache whose bytes are not those that were written
    |   +-- CacheBusyError      a cache that another process is writing
    +-- ModelFileError          a model file that cannot be trusted or read
    +-- UnreadableError         one input that cannot become a row: its reason goes into the ledger
    +-- BadInputError           files that cannot be embedded, under ``on_bad_input="fail"``
    +-- MissingExtraError       an optional package that is not installed

Errors hold plain values, so that they pickle and cross process borders.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = [
    "BackboneError",
    "BadInputError",
    "CacheBusyError",
    "CacheDamagedError",
    "CacheError",
    "CacheMismatchError",
    "InputError",
    "MissingExtraError",
    "ModelFileError",
    "OptionError",
    "PipelineError",
    "UnknownNameError",
    "UnreadableError",
    "nearest",
    "reason_of",
]

_SCREENFUL = 20


def nearest(name: str, accepted: Iterable[str]) -> str | None:
    """Find the accepted name that a mistyped one most likely meant.

    Of a name with slashes, what stands behind the last one is enough.

    Examples
    --------
    >>> nearest("logistc", ["ridge", "logistic"])
    'logistic'
    >>> nearest("featrues", ["resnet/layer4", "resnet/features"])
    'resnet/features'
    """
    whole = {candidate.lower(): candidate for candidate in accepted}
    names: dict[str, str] = {}
    for full, candidate in whole.items():
        names.setdefault(full.rpartition("/")[2], candidate)
    names |= whole
    matches = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return names[matches[0]] if matches else None


def reason_of(error: BaseException) -> str:
    r"""Give the first line of a library's error, to be quoted in a sentence of ours.

    Examples
    --------
    >>> reason_of(ValueError("no header.\nSee the manual.")), reason_of(KeyError())
    ('no header', 'KeyError()')
    """
    text = str(error).strip()
    return text.splitlines()[0].rstrip(" .:") if text else repr(error)


class PipelineError(Exception):
    """Base of all errors that a user can cause and mend."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The message line by line; a line break in it that is none of ours is left in."""
        return (str(self),)


class InputError(PipelineError, ValueError):
    """A source, a table or a label that we cannot work with."""


class OptionError(PipelineError, ValueError):
    """An option that does not apply here, or a value outside its range."""


class UnknownNameError(PipelineError, ValueError):
    """A name that no registry knows.

    Parameters
    ----------
    kind : str
        What was named: ``"backbone"``, ``"layer"``, ``"head"``, ...
    name : str
        The name as given.
    accepted : sequence of str
        The names that exist.
    """

    def __init__(self, kind: str, name: str, accepted: Sequence[str]) -> None:
        super().__init__(kind, name, tuple(accepted))
        self.kind, self.name, self.accepted = kind, name, tuple(accepted)

    def __str__(self) -> str:
        guess = nearest(self.name, self.accepted)
        shown = ", ".join(self.accepted[:_SCREENFUL])
        more = len(self.accepted) - _SCREENFUL
        tail = f" and {more} more" if more > 0 else ""
        hint = f" Did you mean {guess!r}?" if guess else ""
        return f"unknown {self.kind} {self.name!r}.{hint} Accepted: {shown}{tail}."


class BackboneError(PipelineError):
    """A network or a weights file that cannot serve as a backbone."""


class CacheError(PipelineError):
    """A cache that cannot be read or written."""


class CacheMismatchError(CacheError):
    """A cache of another spec: none of its rows is reused.

    Parameters
    ----------
    path : str
        The cache or model file.
    differences : sequence of str
        One sentence a field, with both values.
    """

    def __init__(self, path: str, differences: Sequence[str]) -> None:
        super().__init__(path, tuple(differences))
        self.path, self.differences = path, tuple(differences)

    def __str__(self) -> str:
        return (
            f"{self.path} holds embeddings of another spec: {'; '.join(self.differences)}. "
            "Give the options it was made with, or another cache file."
        )


class CacheDamagedError(CacheError):
    """A cache whose bytes are not those that were written."""


class CacheBusyError(CacheError):
    """A cache that another process is writing.

    Parameters
    ----------
    path : str
        The cache.
    holder : str
        Who holds it, in words: host, process and age.
    """

    def __init__(self, path: str, holder: str) -> None:
        super().__init__(path, holder)
        self.path, self.holder = path, holder

    def __str__(self) -> str:
        return (
            f"{self.path} is being written by {self.holder}. "
            "Only one command at a time may write a cache: wait for it to end, or stop it."
        )


class ModelFileError(PipelineError):
    """A model file that cannot be trusted or read."""


class UnreadableError(PipelineError):
    """One input that cannot become a row.

    Parameters
    ----------
    reason : str
        For the ledger: a short clause, without the file's name.
    transient : bool
        Whether the reason lies outside the file (permission, a missing package), so
        that the input is tried again although its content has not changed.
    """

    def __init__(self, reason: str, *, transient: bool = False) -> None:
        super().__init__(reason, transient)
        self.reason, self.transient = reason, transient

    def __reduce__(self) -> tuple[object, ...]:
        return _unreadable, (self.reason, self.transient)

    def __str__(self) -> str:
        return self.reason


def _unreadable(reason: str, transient: bool) -> UnreadableError:
    return UnreadableError(reason, transient=transient)


class BadInputError(PipelineError):
    """Files that cannot be embedded, under ``on_bad_input="fail"``.

    Parameters
    ----------
    failures : sequence of (str, str)
        Id and reason of every bad input.
    """

    def __init__(self, failures: Sequence[tuple[str, str]]) -> None:
        super().__init__(tuple(failures))
        self.failures = tuple(failures)

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each bad input, up to a screenful."""
        named = [f"  {name}: {reason}" for name, reason in self.failures[:_SCREENFUL]]
        more = len(self.failures) - _SCREENFUL
        return (
            f"{len(self.failures)} input{'s' * (len(self.failures) != 1)} cannot be embedded:",
            *named,
            *([f"  and {more} more"] if more > 0 else []),
            "Mend or remove them, or let them be skipped and listed (on-bad-input skip).",
        )

    def __str__(self) -> str:
        return "\n".join(self.lines)


class MissingExtraError(PipelineError, ImportError):
    """An optional package that is not installed.

    Parameters
    ----------
    purpose : str
        What needs it, as the start of a sentence.
    extra : str
        The extra of this distribution that brings it.
    """

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(purpose, extra)
        self.purpose, self.extra = purpose, extra

    def __str__(self) -> str:
        return (
            f"{self.purpose} an optional package that is not installed. "
            f"Install it: pip install 'transfer-pipeline[{self.extra}]'"
        )
