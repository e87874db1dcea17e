"""Many at once: two writers of one cache, and readers while it is renamed."""

import multiprocessing
import time
from collections import Counter
from pathlib import Path

import numpy as np
from embed_command import Command, ended, rows_of, started

from pipeline.cache import EmbeddingStore
from pipeline.errors import PipelineError

WORLDS = [{"net/x": np.full((n, 2), n, np.float32)} for n in (3, 4)]
"""Each row tells how many there are."""


def two_writers(command: Command, folder: Path) -> Counter:
    """Give one command twice at the same moment: one works, the other is refused or comes after."""
    cache = command.begin(folder)
    said = [folder.with_suffix(f".{turn}") for turn in "ab"]
    start = time.time() + 0.05
    children = [command.start(cache, talk, at=start) for talk in said]
    codes = [ended(child) for child in children]
    refused = sum("is being written by" in talk.read_text() for talk in said)
    with EmbeddingStore.open(cache) as store:
        sound = not store.damaged()
    complete = list(rows_of(cache).items()) == list(command.after.items())
    alone = [found.name for found in folder.iterdir()] == ["cache.h5"]
    return Counter(
        {
            "starts": 1,
            "refused": refused,
            "both worked": int(codes == [0, 0]),
            "unsound": int(not (sound and complete and alone)),
            "unexplained": int(sorted(codes) != [0, refused]),
        }
    )


def readers_and_renames(folder: Path, opens: int, renames: int) -> Counter:
    """Open a cache again and again, while another process replaces it again and again."""
    folder.mkdir(exist_ok=True)
    path = folder / "cache.h5"
    write_world(path, 0)
    context = multiprocessing.get_context("forkserver")
    opened, renamed = context.Value("q", 0), context.Value("q", 0)
    writer = started(keep_renaming, path, opens, renames, opened, renamed)
    seen: Counter = Counter()
    for turn in range(opens):
        opened.value = turn
        while renamed.value < renames * turn // opens - 1:
            time.sleep(0.0001)
        seen[_seen(path)] += 1
    opened.value = opens
    assert ended(writer) == 0
    return seen + Counter(renames=renamed.value)


def keep_renaming(path: Path, opens: int, renames: int, opened, renamed) -> None:
    """Replace the cache, spread evenly over the opens of the reader."""
    for turn in range(renames):
        while opened.value < opens * turn // renames:
            time.sleep(0.0001)
        write_world(path, (turn + 1) % 2)
        renamed.value = turn + 1


def write_world(path: Path, which: int) -> None:
    EmbeddingStore.from_arrays(WORLDS[which], list("abcd")[: 3 + which], path=path).close()


def _seen(path: Path) -> str:
    try:
        with EmbeddingStore.open(path) as store:
            X, _ = store.matrix()
            whole = (len(store) == X).all() and not store.damaged()
        return f"{len(X)} rows" if whole else "garbage"
    except PipelineError as error:
        return f"refused: {type(error).__name__}"
