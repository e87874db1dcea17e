"""The store against a plain dict, whatever is done to it in whatever order."""

import shutil
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from cache_making import SPECS, in_child, inputs_of, vectors, write_batch
from deadly_disk import MANNERS, DeadlyDisk
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.cache import CacheLock, EmbeddingStore, Part, PartFolder, digests_of, merge

WIDTHS = {"net/low": 5, "net/high": 3, "net/top": 2}
NAMES = [f"{letter}.jpg" for letter in "abcdefgh"]
BATCH = 2

names = st.sampled_from(NAMES)
contents = st.sampled_from(["sun", "rain", "snow", "fog", "hail"])
files = st.dictionaries(names, contents, min_size=1, max_size=4)
moments = st.integers(1, 45)
manners = st.sampled_from(MANNERS)


@dataclass
class World:
    """What a cache should hold: contents by name, and layers."""

    files: dict[str, str] = field(default_factory=dict)
    layers: list[str] = field(default_factory=lambda: ["net/low"])

    def copy(self) -> "World":
        return World(dict(self.files), list(self.layers))

    def widths(self) -> dict[str, int]:
        return {layer: WIDTHS[layer] for layer in self.layers}


def embed(path: Path, world: World) -> None:
    """Do what stage 1 does: parts of what is missing, changed or damaged, then one merge."""
    keys = dict(zip(world.files, digests_of(inputs_of([*world.files.values()])), strict=True))
    with CacheLock(path):
        folder = PartFolder(path)
        parts = _sound_parts(folder, keys)
        old = EmbeddingStore.open(path) if path.exists() else None
        held = _held(old)
        known = set(held.values()) if old and set(world.layers) <= set(old.layers) else set()
        kept = [id for id in world.files if keys[id] == held.get(id)]
        new = [layer for layer in world.layers if old is None or layer not in old.layers]
        fresh = [id for id in world.files if id not in kept]
        for ids, layers in ((fresh, world.layers), (kept, new)):
            done = {id for part in parts if set(layers) <= set(part.layers)
                    for id in _usable(part, known)}  # fmt: skip
            todo = [id for id in ids if id not in done] if layers else []
            for start in range(0, len(todo), BATCH):
                batch = {id: world.files[id] for id in todo[start : start + BATCH]}
                copied = [id for id in batch if keys[id] in known]
                widths = {layer: WIDTHS[layer] for layer in layers}
                parts.append(write_batch(folder, start, batch, widths, copied=copied))
        merge(path, ids=list(world.files), layers=world.widths(), specs=SPECS, parts=parts, old=old)
        if old is not None:
            old.close()


def _sound_parts(folder: PartFolder, keys: dict[str, bytes]) -> list[Part]:
    """Read the parts of killed runs, and drop those of inputs that have changed since."""
    sound = []
    for part in folder.read(SPECS.values()).sound:
        made = zip(part.ids, digests_of(part.inputs), strict=True)
        if all(keys.get(id, digest) == digest for id, digest in made):
            sound.append(part)
        else:
            folder.drop(part)
    return sound


def _usable(part: Part, known: set[bytes]) -> set[str]:
    """Ids whose vectors lie in a part, or in the cache where the part says so."""
    digests = digests_of(part.inputs)
    return {
        id for row, id in enumerate(part.ids) if row not in part.copied or digests[row] in known
    }


def _held(old: EmbeddingStore | None) -> dict[str, bytes]:
    """What the cache holds undamaged: content by id."""
    if old is None:
        return {}
    damaged = {row for spans in old.damaged().values() for span in spans for row in span}
    pairs = enumerate(zip(old.ids, digests_of(old.inputs), strict=True))
    return dict(pair for row, pair in pairs if row not in damaged)


class CacheOnDisk(RuleBasedStateMachine):
    """One cache on disk, and what it must hold by now."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "cache.h5"
        self.held: World | None = None
        self.damaged = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def dies(self, work, moment: int, manner: str) -> bool:
        """Do something in a child, on a deadly disk, and say whether it died."""

        def deadly() -> None:
            DeadlyDisk(moment, manner).install()
            work()

        code = in_child(deadly)
        assert code in (0, -signal.SIGKILL)
        return code != 0

    def settle(self, wanted: World) -> None:
        """After a kill: the cache is as it was, or as it was to become, and nothing else."""
        if self.path.exists() and list(wanted.files) == self.ids() and self.shows(wanted):
            self.held, self.damaged = wanted, False

    def ids(self) -> list[str]:
        with h5py.File(self.path) as file:
            return file["ids"].asstr()[()].tolist()

    def shows(self, world: World) -> bool:
        """Whether the bytes are those of a world, by h5py alone."""
        with h5py.File(self.path) as file:
            found = sorted(f"net/{name}" for name in file["layers/net"])
            return found == sorted(world.layers) and all(
                np.array_equal(file["layers"][layer][()], expected(world, layer)) for layer in found
            )

    @invariant()
    def the_cache_is_what_the_dict_says(self) -> None:
        if self.held is None:
            assert not self.path.exists()
            return
        with EmbeddingStore.open(self.path) as store:
            assert list(store.ids) == list(self.held.files)
            assert list(store.layers) == self.held.layers
            assert bool(store.damaged()) == self.damaged
            if not self.damaged:
                X, slices = store.matrix()
                for layer, columns in slices.items():
                    assert np.array_equal(X[:, columns], expected(self.held, layer))


def expected(world: World, layer: str) -> np.ndarray:
    return vectors(list(world.files.values()), layer, WIDTHS[layer])


class EmbeddedCache(CacheOnDisk):
    """Inputs come, change, move and go, layers are added, and runs are killed."""

    def __init__(self) -> None:
        super().__init__()
        self.source = World()

    @rule(more=files)
    def inputs_come_or_change(self, more) -> None:
        self.source.files |= more

    @precondition(lambda self: self.source.files)
    @rule(data=st.data(), new=names)
    def an_input_is_renamed(self, data, new) -> None:
        old = data.draw(st.sampled_from(sorted(self.source.files)))
        self.source.files[new] = self.source.files.pop(old)

    @precondition(lambda self: len(self.source.files) > 1)
    @rule(data=st.data())
    def an_input_is_removed(self, data) -> None:
        del self.source.files[data.draw(st.sampled_from(sorted(self.source.files)))]

    @precondition(lambda self: len(self.source.layers) < len(WIDTHS))
    @rule()
    def a_layer_is_wanted(self) -> None:
        self.source.layers.append(list(WIDTHS)[len(self.source.layers)])

    @precondition(lambda self: self.source.files)
    @rule()
    def it_is_embedded(self) -> None:
        embed(self.path, self.source)
        self.held, self.damaged = self.source.copy(), False
        assert [found.name for found in self.folder.iterdir()] == ["cache.h5"]

    @precondition(lambda self: self.source.files)
    @rule(moment=moments, manner=manners)
    def a_run_is_killed(self, moment, manner) -> None:
        wanted = self.source.copy()
        if self.dies(lambda: embed(self.path, wanted), moment, manner):
            self.settle(wanted)
        else:
            self.held, self.damaged = wanted, False

    @precondition(lambda self: self.held is not None and not self.damaged)
    @rule(data=st.data())
    def a_row_is_damaged(self, data) -> None:
        layer = data.draw(st.sampled_from(self.held.layers))
        row = data.draw(st.integers(0, len(self.held.files) - 1))
        with h5py.File(self.path) as file:
            place = file["layers"][layer].id.get_offset() + 2 * WIDTHS[layer] * row
        flip(self.path, place)
        self.damaged = True

    @precondition(lambda self: PartFolder(self.path).count())
    @rule(data=st.data())
    def a_part_is_damaged(self, data) -> None:
        part = data.draw(st.sampled_from(sorted(PartFolder(self.path).path.glob("*.part"))))
        flip(part, data.draw(st.integers(0, part.stat().st_size - 1)))


def flip(path: Path, place: int) -> None:
    """Flip a bit, leaving everyone's open file alone."""
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.unlink()
    path.write_bytes(content)


class ForeignCache(CacheOnDisk):
    """Vectors that were computed elsewhere: made once, then rows and layers are appended."""

    @initialize(first=files)
    def it_is_made(self, first) -> None:
        self.held = World(first)
        arrays = {"net/low": expected(self.held, "net/low")}
        EmbeddingStore.from_arrays(arrays, list(first), path=self.path, specs=SPECS).close()

    def rows(self, more: dict[str, str]):
        """Give what appends new rows, and the world after it."""
        new = {id: content for id, content in more.items() if id not in self.held.files}
        wanted = World(self.held.files | new, self.held.layers)
        arrays = {layer: vectors([*new.values()], layer, WIDTHS[layer]) for layer in wanted.layers}
        return lambda: append(self.path, arrays, list(new)), wanted

    def layer(self):
        """Give what appends a new layer, and the world after it."""
        added = list(WIDTHS)[len(self.held.layers)]
        wanted = World(self.held.files, [*self.held.layers, added])
        arrays = {added: expected(wanted, added)}
        return lambda: append(self.path, arrays, list(wanted.files)), wanted

    def do(self, work, wanted: World, moment: int | None, manner: str) -> None:
        if moment is None:
            work()
            self.held = wanted
        elif self.dies(work, moment, manner):
            self.settle(wanted)
        else:
            self.held = wanted

    @rule(more=files, moment=st.none() | moments, manner=manners)
    def rows_are_appended(self, more, moment, manner) -> None:
        if more.keys() - self.held.files.keys():
            self.do(*self.rows(more), moment, manner)

    @precondition(lambda self: self.held and len(self.held.layers) < len(WIDTHS))
    @rule(moment=st.none() | moments, manner=manners)
    def a_layer_is_appended(self, moment, manner) -> None:
        self.do(*self.layer(), moment, manner)


def append(path: Path, arrays, ids) -> None:
    with EmbeddingStore.open(path) as store:
        store.append(arrays, ids)


HOW = settings(
    max_examples=8,
    stateful_step_count=14,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

TestEmbeddedCache = EmbeddedCache.TestCase
TestEmbeddedCache.settings = HOW
TestForeignCache = ForeignCache.TestCase
TestForeignCache.settings = HOW
