"""Where weights come from: the words for it, and random weights that are always the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["DEFAULT", "MODULE", "RANDOM", "seeded"]

DEFAULT = "default"
"""The weights that the name stands for."""

RANDOM = "random"
"""Random weights, the same each time: a baseline, and a network to test with."""

MODULE = "module"
"""The weights of a module that the user passed."""


@contextmanager
def seeded() -> Iterator[None]:
    """Initialise networks alike each time, leaving the caller's random state alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed CUDA's too
        yield
