"""Summary: what an embedding did, and where its time went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pipeline.cache import EmbeddingStore
    from pipeline.extraction import Clock

__all__ = ["Summary"]


@dataclass(frozen=True)
class Summary:
    """What an embedding did.

    Parameters
    ----------
    rows, failed, reused : int
        Rows in the cache, ledger entries, rows that were not computed again.
    layers : dict of str to int
        Width of every layer.
    images_per_second : float or None
        Images computed over all the time but the start; None when nothing was.
    limit : str
        What took most of the time.
    seconds : dict of str to float
        Where the time went, see `Clock`.
    """

    rows: int
    failed: int
    reused: int
    layers: dict[str, int]
    images_per_second: float | None
    limit: str
    seconds: dict[str, float]

    @classmethod
    def of(cls, store: EmbeddingStore, clock: Clock, computed: int) -> Self:
        """Sum up a run that computed so many images and made this cache."""
        seconds = clock.seconds()
        embedding = seconds["total"] - seconds["start"]
        return cls(
            rows=len(store),
            failed=len(store.failed),
            reused=len(store) - computed,
            layers=store.layers,
            images_per_second=computed / embedding if computed else None,
            limit=clock.limit(),
            seconds=seconds,
        )
