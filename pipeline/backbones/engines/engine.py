"""Engine: runs batches of pictures, several of them under way at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Engine", "EngineMemoryError", "Pending"]


class EngineMemoryError(MemoryError):
    """The device has no memory for a batch of this size; a smaller one may fit."""


class Pending(Protocol):
    """A batch under way."""

    def result(self) -> NDArray[np.float32]:
        """Wait for it, and give ``(batch, sum of widths)``."""


class Engine(Protocol):
    """Embeds batches of 8-bit pictures."""

    name: str
    depth: int
    """Batches under way that keep the device busy."""

    def begin(self, pictures: NDArray[np.uint8]) -> Pending:
        """Start on pictures ``(batch, height, width, 3)``, which must not change meanwhile."""

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Give ``(batch, sum of widths)``."""
        return self.begin(pictures).result()
