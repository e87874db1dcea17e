"""Kills of `pipeline embed`, and the toll they take."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from deadly_disk import MANNERS
from embed_command import Command, ended, rows_of

from pipeline.cache import EmbeddingStore
from pipeline.errors import PipelineError

HARM = ("unopenable", "wrong rows", "lost rows", "other bytes", "failed reruns", "leftovers")
"""What must never be counted."""


@dataclass(frozen=True)
class Kill:
    """When a command dies: ``delay`` seconds after its start, or at a change of the disk."""

    command: str
    delay: float | None = None
    moment: int | None = None
    manner: str = "before"


def drawn(commands: dict[str, Command], seed: int) -> Iterator[Kill]:
    """Draw kills without end: from outside and at the disk, of each command in turn."""
    rng = np.random.default_rng(seed)
    while True:
        for name, command in commands.items():
            yield Kill(name, delay=float(rng.uniform(0, command.seconds)))
            moment = int(rng.integers(1, command.changes + 1))
            yield Kill(name, moment=moment, manner=str(rng.choice(MANNERS)))


def toll_of(kill: Kill, command: Command, folder: Path) -> Counter:
    """Kill a command once, look at what it left, and give the same command again."""
    cache, said = command.begin(folder), folder.with_suffix(".said")
    child = command.start(cache, said, moment=kill.moment, manner=kill.manner)
    if kill.delay is not None:
        time.sleep(kill.delay)
        child.kill()
    toll = Counter(kills=int(ended(child) == -signal.SIGKILL))
    toll["caches found"] = int(cache.exists())
    toll["parts found"] = len(list(folder.glob("cache.h5.parts/[0-9]*.part")))
    toll += _harm_before(command, cache)
    code = ended(command.start(cache, said))
    toll["failed reruns"] = int(code != 0)
    if code == 0:
        toll += _harm_after(command, cache)
    return toll


def _harm_before(command: Command, cache: Path) -> Counter:
    """Right after the kill: the cache is as it was, or finished, or not there if none was."""
    if not cache.exists():
        return Counter({"lost rows": len(command.before or ())})
    if not _opens(cache):
        return Counter(unopenable=1)
    found = rows_of(cache)
    if found in (command.before, command.after):
        return Counter()
    return Counter({"wrong rows": sum(command.after.get(id) != row for id, row in found.items())})


def _harm_after(command: Command, cache: Path) -> Counter:
    """After the rerun: every row, bit for bit, and nothing beside the cache."""
    if not _opens(cache):
        return Counter(unopenable=1)
    found, expected = rows_of(cache), command.after
    return Counter(
        {
            "wrong rows": sum(expected.get(id) != row for id, row in found.items()),
            "lost rows": len(expected.keys() - found.keys()),
            "other bytes": int(list(found.items()) != list(expected.items())),
            "leftovers": len(list(cache.parent.iterdir())) - 1,
        }
    )


def _opens(cache: Path) -> bool:
    """Whether it opens, and every block has its checksum."""
    try:
        with EmbeddingStore.open(cache) as store:
            return not store.damaged()
    except PipelineError:
        return False
