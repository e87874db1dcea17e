"""Memory: how much of it there is, and how much of it is meant by a text."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from pipeline.errors import OptionError

__all__ = ["free_memory", "parse_bytes", "shown_bytes", "used_memory"]

_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_bytes(text: str) -> int:
    """Read a size such as ``8GB``, ``500 MB`` or ``2GiB``.

    Examples
    --------
    >>> parse_bytes("8GB"), parse_bytes("1.5 MiB")
    (8000000000, 1572864)
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT])(I?)B?\s*", str(text).upper())
    if match is None or float(match[1]) <= 0:
        raise OptionError(
            f"memory is {text!r}, but must be a number with a unit, like 8GB, 500MB or 2GiB."
        )
    return int(float(match[1]) * (_BINARY if match[3] else _UNITS)[match[2]])


def shown_bytes(size: float) -> str:
    """Show a size in the unit that suits it.

    Examples
    --------
    >>> shown_bytes(8_000_000_000), shown_bytes(1536)
    ('8 GB', '1.54 kB')
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def free_memory() -> int:
    """Bytes that this machine, or the group of processes that we are in, could still give."""
    found = [2**40]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1]))
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        most = int((group / "memory.max").read_text())
        found.append(most - int((group / "memory.current").read_text()))
    if len(found) == 1:
        with suppress(OSError, ValueError, AttributeError):
            found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return max(min(found), 0)


def used_memory() -> int:
    """Bytes that this process holds now; a guess where the system does not say."""
    with suppress(OSError, ValueError, AttributeError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 300_000_000
