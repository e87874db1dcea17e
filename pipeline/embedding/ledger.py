"""Inputs without a row: which they are, and what is said when there are no others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.cache import EmbeddingStore, Part
    from pipeline.samples import SampleSet

__all__ = ["failures_among", "nothing_usable"]


def failures_among(
    samples: SampleSet, parts: Sequence[Part], old: EmbeddingStore | None
) -> dict[str, str]:
    """Give the reason of every input of a source that has no row: the latest word counts.

    What failed before and has not changed since is among them, though nobody tried it again.
    """
    before = old.failed if old is not None else ()
    reasons: dict[str, str | None] = {failure.id: failure.reason for failure in before}
    for part in parts:
        reasons |= {name: part.failed.get(row) for row, name in enumerate(part.ids)}
    found = {name: reason for name in samples.ids if (reason := reasons.get(name)) is not None}
    return found | dict(samples.failed)


def nothing_usable(failures: Mapping[str, str]) -> InputError:
    """Say that a source holds nothing but failures, with the commonest reason.

    Examples
    --------
    >>> print(nothing_usable({"a.jpg": "is empty", "b.jpg": "is empty", "c.jpg": "no such file"}))
    none of the 3 inputs can be used; the commonest reason, 2 times: is empty. Give files that
    open in a picture viewer.
    """
    reason, count = Counter(failures.values()).most_common(1)[0]
    return InputError(
        f"none of the {len(failures)} inputs can be used; the commonest reason, {count} times: "
        f"{reason}. Give files that open in a picture viewer."
    )
