"""Sharing: what targets with the same labelled rows have in common, computed for the first alone.

``X'WX`` does not know the labels, nor do its eigenvectors where a fusion does not, nor the rows
turned into them; these are most of the time that a search takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.heads.moments import Moments

__all__ = ["Kept", "Sharing"]

_Value = TypeVar("_Value")


@dataclass(eq=False)
class Kept:
    """Values by name; one that is not there is made, and kept if it may be.

    Parameters
    ----------
    keeping : bool
    """

    keeping: bool = True
    values: dict[Any, Any] = field(default_factory=dict)

    def get(self, name: Any, make: Callable[[], _Value]) -> _Value:
        """Give a value; one without a name (None) belongs to one target alone."""
        if name is None or not self.keeping:
            return make()
        if name not in self.values:
            self.values[name] = make()
        value: _Value = self.values[name]
        return value


@dataclass(eq=False)
class Sharing:
    """What is known of some rows of ``X``; for targets that are fitted on all of them.

    Rows that are weighted otherwise, or of which others are looked at, are other rows.

    Parameters
    ----------
    keeping : bool
        Whether decompositions are kept, too: about three times the room of ``X'X`` and of the
        rows.
    """

    keeping: bool = True
    moments: dict[bytes, Moments] = field(default_factory=dict)
    _of_rows: dict[tuple[bytes, bytes], Kept] = field(default_factory=dict)

    def of_rows(self, weight: NDArray[np.float64], looked_at: NDArray[np.int64]) -> Kept:
        """Give the decompositions of rows of these weights, of which these are looked at."""
        key = (weight.tobytes(), looked_at.tobytes())
        return self._of_rows.setdefault(key, Kept(self.keeping))
