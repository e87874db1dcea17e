"""Processors: how many of them this process may use, and when one is enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["one_thread", "usable_processors"]


def usable_processors() -> int:
    """Count the processors that this process is allowed to run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def one_thread(when: bool) -> Iterator[None]:
    """Let linear algebra run in one thread, where the matrices are small.

    Threads that wait for each other after every few microseconds gain little on an idle
    machine; beside one busy process they made 400 rows take 77 s instead of 2 (two processors,
    OpenBLAS).
    """
    if not when:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
