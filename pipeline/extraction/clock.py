"""Where the time of an extraction goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

__all__ = ["Clock"]


@dataclass
class Clock:
    """Seconds by what they were spent on.

    Parameters
    ----------
    start : float
        Until the first batch was asked for: planning, imports, the network.
    decode : float
        Reading, decoding and resizing, summed over the loading threads.
    forward : float
        Waiting for the network.
    write : float
        Writing parts, in a thread of its own, and merging them.
    wait : float
        Waiting for the loading threads.
    """

    start: float = 0.0
    decode: float = 0.0
    forward: float = 0.0
    write: float = 0.0
    wait: float = 0.0
    began: float = field(default_factory=time.perf_counter, repr=False)

    @contextmanager
    def spent_on(self, what: str) -> Iterator[None]:
        """Count the time inside the context.

        Examples
        --------
        >>> clock = Clock()
        >>> with clock.spent_on("write"):
        ...     pass
        >>> clock.write > 0
        True
        """
        began = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, what, getattr(self, what) + time.perf_counter() - began)

    def seconds(self) -> dict[str, float]:
        """Give the seconds so far, with their total since the clock was made."""
        spent = {name: round(value, 3) for name, value in asdict(self).items() if name != "began"}
        return spent | {"total": round(time.perf_counter() - self.began, 3)}

    def limit(self) -> str:
        """Name what a faster run would have to speed up: the largest share of the time."""
        shares = {"start": self.start, "decode": self.wait, "forward": self.forward}
        shares["write"] = self.write
        return max(shares, key=lambda name: shares[name])
