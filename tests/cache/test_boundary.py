"""The boundary cache: whole or absent, found by its key, read in any order."""

import errno
import json
import os
import resource
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from cache_making import in_child
from deadly_disk import MANNERS, DeadlyDisk

from pipeline.cache import BoundaryCache, CacheLock, EmbeddingStore
from pipeline.errors import CacheBusyError, CacheDamagedError, CacheError

N, VIEWS, SHAPE = 37, 3, (4, 5, 6)
LAYERS = {"net/blocks.0": 7, "timm/vit/blocks.1.cls": 3}
IDS = [f"a folder/{row:02} ü.jpg" for row in range(N)]
DIGESTS = np.random.default_rng(5).integers(0, 256, (N, 16), dtype=np.uint8)


def values(seed=0):
    """Activations of every view and row, and layers."""
    rng = np.random.default_rng(seed)
    activations = rng.normal(size=(VIEWS, N, *SHAPE)).astype(np.float16)
    layers = {name: rng.normal(size=(VIEWS, N, w)).astype(np.float16) for name, w in LAYERS.items()}
    return activations, layers


def writing(path, key="key", **changed):
    given = {
        "ids": IDS, "digests": DIGESTS, "block": "blocks.2", "shape": SHAPE, "layers": LAYERS,
        "views": VIEWS,
    }  # fmt: skip
    return BoundaryCache.write(path, key, **{**given, **changed})


def write(path, key="key", seed=0, size=8):
    activations, layers = values(seed)
    with writing(path, key) as writer:
        for view in range(VIEWS):
            for start in range(0, N, size):
                rows = np.arange(start, min(start + size, N))
                below = {name: layer[view, rows] for name, layer in layers.items()}
                writer.put(view, rows, activations[view, rows], below)
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "model.boundary.h5")


@pytest.fixture
def cache(path):
    with BoundaryCache.open(path, "key") as cache:
        yield cache


def opens(path, key):
    cache = BoundaryCache.open(path, key)
    if cache is not None:
        cache.close()
    return cache is not None


def assert_holds(path, key="key", seed=0):
    activations, layers = values(seed)
    with BoundaryCache.open(path, key) as cache:
        for view in range(VIEWS):
            got, below = cache.batch(view, np.arange(N))
            np.testing.assert_array_equal(got, activations[view])
            for name, layer in layers.items():
                np.testing.assert_array_equal(below[name], layer[view])


@pytest.mark.parametrize(
    "rows",
    [range(N), [36, 0, 17], [5, 5, 5, 4], [], np.array([3, 30], np.uint8), np.arange(N)[::-1]],
    ids=["all", "mixed", "repeated", "none", "small numbers", "backwards"],
)
@pytest.mark.parametrize("view", range(VIEWS))
def test_rows_come_back_bit_for_bit_in_the_order_asked_for(cache, view, rows):
    activations, layers = values()
    chosen = np.asarray(rows, dtype=int)
    got, below = cache.batch(view, rows)
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, activations[view, chosen])
    assert list(below) == list(LAYERS)
    for name, layer in layers.items():
        assert below[name].dtype == np.float16
        np.testing.assert_array_equal(below[name], layer[view, chosen])


def test_what_is_read_belongs_to_the_reader(cache):
    first, below = cache.batch(0, [1, 2])
    first[...] = 0
    below["net/blocks.0"][...] = 0
    assert cache.batch(0, [1, 2])[0].any()
    assert cache.batch(0, [1, 2])[1]["net/blocks.0"].any()


def test_it_says_what_it_holds(cache):
    contents = cache.contents
    assert len(cache) == N
    assert contents.ids == tuple(IDS)
    np.testing.assert_array_equal(contents.digests, DIGESTS)
    assert (contents.key, contents.block, contents.shape) == ("key", "blocks.2", SHAPE)
    assert contents.layers == LAYERS
    assert list(contents.layers) == list(LAYERS)
    assert contents.views == VIEWS


def test_h5py_alone_reads_it(path):
    activations, layers = values()
    with h5py.File(path) as file:
        assert sorted(file) == ["boundary", "digests", "ids", "layers"]
        assert file["ids"].asstr()[()].tolist() == IDS
        np.testing.assert_array_equal(file["digests"][()], DIGESTS)
        assert file.attrs["format_version"] == 1
        assert file.attrs["key"] == "key"
        assert file.attrs["views"] == VIEWS
        assert file.attrs["block"] == "blocks.2"
        assert tuple(file.attrs["shape"]) == SHAPE
        assert json.loads(file.attrs["layers"]) == LAYERS
        for view in range(VIEWS):
            dataset = file[f"boundary/blocks.2/{view}"]
            assert dataset.dtype == np.float16
            np.testing.assert_array_equal(dataset[()], activations[view])
            for name, layer in layers.items():
                np.testing.assert_array_equal(file[f"layers/{view}/{name}"][()], layer[view])


@pytest.mark.parametrize("size", [1, 5, N])
def test_the_pieces_in_which_it_was_written_change_no_byte(tmp_path, path, size):
    other = write(tmp_path / "other.h5", size=size)
    assert other.read_bytes() == path.read_bytes()


def test_rows_may_be_put_in_any_order_flat_and_in_float32(tmp_path, path):
    activations, layers = values()
    order = np.random.default_rng(1).permutation(N)
    with writing(tmp_path / "other.h5") as writer:
        for rows in (order[:11], order[11:12], order[12:12], order[12:]):
            for view in (2, 0, 1):
                below = {name: layer[view, rows] for name, layer in layers.items()}
                flat = activations[view, rows].astype(np.float32).reshape(len(rows), 120)
                writer.put(view, rows, flat, below | {"net/other": np.zeros((len(rows), 2))})
    assert (tmp_path / "other.h5").read_bytes() == path.read_bytes()


def test_numbers_are_rounded_to_float16_as_numpy_does(tmp_path):
    exact = np.random.default_rng(2).normal(size=(2, 3)) * [1e-7, 1, 1e4]
    few = {"ids": ["a", "b"], "digests": DIGESTS[:2], "shape": (3,), "layers": {}, "views": 1}
    with writing(tmp_path / "b.h5", **few) as writer:
        writer.put(0, [0, 1], exact, {})
    with BoundaryCache.open(tmp_path / "b.h5", "key") as cache:
        np.testing.assert_array_equal(cache.batch(0, [0, 1])[0], exact.astype(np.float16))


def test_threads_read_side_by_side(cache):
    activations, _ = values()
    batches = [np.random.default_rng(seed).permutation(N)[:16] for seed in range(60)]
    with ThreadPoolExecutor(4) as pool:
        for rows, got in zip(
            batches, pool.map(lambda rows: cache.batch(1, rows), batches), strict=True
        ):
            np.testing.assert_array_equal(got[0], activations[1, rows])


def test_another_key_is_not_opened_and_stays_untouched(path):
    before = path.read_bytes()
    assert BoundaryCache.open(path, "another key") is None
    assert path.read_bytes() == before
    write(path, "another key", seed=1)
    assert BoundaryCache.open(path, "key") is None
    assert_holds(path, "another key", seed=1)


def test_a_long_key_is_kept(tmp_path):
    key = "what it was made of, ü " * 5000
    write(tmp_path / "b.h5", key)
    assert BoundaryCache.open(tmp_path / "b.h5", key[:-1]) is None
    assert_holds(tmp_path / "b.h5", key)


def test_an_absent_file_a_folder_and_strange_files_are_not_opened(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "empty.h5").touch()
    (tmp_path / "folder.h5").mkdir()
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["ids"] = [1, 2]
    EmbeddingStore.from_arrays({"net/low": np.eye(2)}, ["a", "b"], path=tmp_path / "cache.h5")
    for name in ("absent", "text", "empty", "folder", "foreign", "cache"):
        assert BoundaryCache.open(tmp_path / f"{name}.h5", "key") is None


def test_another_format_is_not_opened(tmp_path, monkeypatch):
    from pipeline.cache import boundary_layout

    with monkeypatch.context() as patch:
        patch.setattr(boundary_layout, "BOUNDARY_VERSION", 2)
        path = write(tmp_path / "b.h5")
        assert_holds(path)
    assert BoundaryCache.open(path, "key") is None


def test_a_damaged_structure_is_not_opened(path):
    """Any byte but those of the values themselves: these HDF5 would not miss either."""
    content, rng = path.read_bytes(), np.random.default_rng(3)
    with h5py.File(path) as file:
        found = []
        file.visititems(lambda name, item: found.append((name, item)))
        vectors = [
            (item.id.get_offset(), item.id.get_storage_size())
            for name, item in found
            if isinstance(item, h5py.Dataset) and name.startswith(("boundary", "layers"))
        ]
    inside = np.zeros(len(content), bool)
    for start, length in vectors:
        inside[start : start + length] = True
    for place in rng.choice(np.flatnonzero(~inside), 100, replace=False):
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        assert BoundaryCache.open(path, "key") is None, place
    for length in (len(content) - 1, len(content) // 2, 4096, 100):
        path.write_bytes(content[:length])
        assert BoundaryCache.open(path, "key") is None, length
    path.write_bytes(content)
    assert_holds(path)


def test_a_file_that_is_cut_short_while_it_is_read_is_an_error(path, cache):
    os.truncate(path, 5000)
    with pytest.raises(CacheDamagedError) as error:
        cache.batch(2, [N - 1])
    assert str(error.value) == (
        f"{path} was cut short while it was read. Remove it, and start again."
    )


def test_a_reader_keeps_the_file_that_it_opened(path, cache):
    write(path, "another key", seed=1)
    np.testing.assert_array_equal(cache.batch(0, [3])[0], values()[0][0, [3]])
    path.unlink()
    np.testing.assert_array_equal(cache.batch(0, [4])[0], values()[0][0, [4]])


def test_delete_removes_the_file_and_a_second_time_nothing(path):
    cache = BoundaryCache.open(path, "key")
    cache.delete()
    assert list(path.parent.iterdir()) == []
    cache.delete()
    with pytest.raises(ValueError, match="closed file"):
        cache.batch(0, [0])


@pytest.mark.parametrize("there", [True, False], ids=["a file was there", "none was there"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, OSError("not the disk's")])
def test_an_error_in_the_block_leaves_nothing_and_comes_through(tmp_path, there, error):
    path = tmp_path / "model.boundary.h5"
    if there:
        write(path)

    def broken():
        activations, layers = values(1)
        with writing(path, "another key") as writer:
            below = {name: layer[0] for name, layer in layers.items()}
            writer.put(0, range(N), activations[0], below)
            raise error

    with pytest.raises(error if isinstance(error, type) else OSError) as caught:
        broken()
    assert isinstance(error, type) or caught.value is error
    assert [one.name for one in tmp_path.iterdir()] == [path.name] * there
    if there:
        assert_holds(path)


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("there", [True, False], ids=["a file was there", "none was there"])
def test_a_kill_at_any_change_of_the_disk_leaves_the_old_file_or_the_new(tmp_path, manner, there):
    moment, code = 1, -signal.SIGKILL
    while code == -signal.SIGKILL:
        path = tmp_path / f"{moment}" / "model.boundary.h5"
        path.parent.mkdir()
        if there:
            write(path, size=N)

        def work(path=path, moment=moment):
            DeadlyDisk(moment, manner).install()
            write(path, "new key", seed=1, size=N)

        code = in_child(work)
        found = [key for key in ("key", "new key") if opens(path, key)]
        assert len(found) == path.exists()
        assert path.exists() or not there
        if found:
            assert_holds(path, found[0], seed=int(found[0] == "new key"))
        write(path, "new key", seed=1, size=N)
        assert [one.name for one in path.parent.iterdir()] == [path.name]
        moment += 3  # every third is enough: the file is written in some twenty steps
    assert code == 0
    assert moment > 10


def test_rows_that_were_not_put_are_refused_and_nothing_is_left(tmp_path):
    activations, layers = values()

    def incomplete():
        with writing(tmp_path / "b.h5") as writer:
            for view, count in enumerate([N, N - 4, N]):
                below = {name: layer[view, :count] for name, layer in layers.items()}
                writer.put(view, range(count), activations[view, :count], below)

    with pytest.raises(ValueError, match="not put") as error:
        incomplete()
    assert str(error.value) == (
        "4 of 37 rows of view 1 were not put. Put every row of every view before the block ends."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "shown"), [(1e5, "100000"), (np.nan, "nan"), (-np.inf, "-inf")])
@pytest.mark.parametrize(
    ("where", "name"),
    [("activations", "boundary/blocks.2/1"), ("net/blocks.0", "layers/1/net/blocks.0")],
)
def test_a_value_that_float16_cannot_hold_is_named(tmp_path, value, shown, where, name):
    activations, layers = values()
    given = {"activations": activations[1, :5].astype(np.float32)}
    given |= {key: layer[1, :5].astype(np.float32) for key, layer in layers.items()}
    given[where].reshape(5, -1)[3, 2] = value
    with (
        pytest.raises(CacheError) as error,
        writing(tmp_path / "b.h5") as writer,
    ):
        writer.put(1, [4, 3, 2, 1, 0], given.pop("activations"), given)
    assert str(error.value) == (
        f"{name} of {IDS[1]!r} holds {shown}, but the boundary cache keeps finite numbers up to "
        "65504. Train without the boundary cache."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("view", "rows"), [(0, [N]), (0, [-1, 2]), (VIEWS, [0]), (-1, [0])])
def test_rows_and_views_that_do_not_exist_are_refused(tmp_path, cache, view, rows):
    kind, wrong, count = ("view", view, VIEWS) if view else ("row", rows[0], N)
    sentence = f"there is no {kind} {wrong} among {count}. Count {kind}s from 0."
    with pytest.raises(IndexError) as error:
        cache.batch(view, rows)
    assert str(error.value) == sentence
    with pytest.raises(IndexError) as error, writing(tmp_path / "b.h5") as writer:
        writer.put(view, rows, np.zeros((len(rows), *SHAPE)), {})
    assert str(error.value) == sentence


def test_values_of_another_shape_are_refused(tmp_path):
    below = {name: np.zeros((2, width)) for name, width in LAYERS.items()}
    with pytest.raises(ValueError, match="is of shape") as error, writing(tmp_path / "b") as writer:
        writer.put(0, [0, 1], np.zeros((2, 4, 5, 7)), below)
    assert str(error.value) == "boundary/blocks.2/0 is of shape (2, 4, 5, 7), not (2, 4, 5, 6)."


def test_the_size_is_known_before(path):
    said = BoundaryCache.size(N, SHAPE, LAYERS, VIEWS)
    assert said == VIEWS * N * (4 * 5 * 6 + 7 + 3) * 2
    assert said < path.stat().st_size < said + 4096 + 25_000


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    path, shape = tmp_path / "b.h5", (1024, 1024, 1024, 1024)
    with pytest.raises(CacheError) as error, writing(path, shape=shape):
        pass
    assert str(error.value).startswith(
        f"{path} needs 244 TB while the top blocks are trained, but only "
    )
    assert str(error.value).endswith(
        " are free there. Take fewer views or another place, or train without the boundary cache."
    )
    assert free < 244e12
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["from the start", "after a view"])
def test_a_disk_that_fills_up_is_an_error_and_nothing_is_left(tmp_path, moment):
    """A limit on the size of files takes the place of a full disk: a write that fails."""
    path = tmp_path / "b.h5"

    def fill_up():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    def write_views():
        activations, layers = values()
        with writing(path) as writer:
            for view in range(VIEWS):
                below = {name: layer[view] for name, layer in layers.items()}
                writer.put(view, range(N), activations[view], below)
                fill_up()

    def work():
        if moment == "from the start":
            fill_up()
        with pytest.raises(CacheError) as error:
            write_views()
        assert str(error.value) == (
            f"cannot write {path}: File too large. Take fewer views or another place, or train "
            "without the boundary cache."
        )

    assert in_child(work) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_end_is_an_error_and_the_old_file_stays(path, monkeypatch, call):
    def failing(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(CacheError) as error:
            write(path, "new key", seed=1)
    assert str(error.value) == (
        f"cannot write {path}: No space left on device. Take fewer views or another place, or "
        "train without the boundary cache."
    )
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert_holds(path)


def test_a_place_where_a_folder_stands_is_an_error_and_nothing_is_left(tmp_path):
    (tmp_path / "b.h5").mkdir()
    with pytest.raises(CacheError, match=r"cannot write .*b\.h5: Is a directory\. Take fewer"):
        write(tmp_path / "b.h5")
    assert [one.name for one in tmp_path.iterdir()] == ["b.h5"]


def test_leftovers_of_a_killed_writer_are_removed_by_the_next(path):
    leftover = path.with_name(f".{path.name}.0123abcd.tmp")
    leftover.write_bytes(b"half a file")
    write(path, "new key")
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_second_writer_is_refused(path):
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with CacheLock(path):
            entered.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(10)
    try:
        with pytest.raises(CacheBusyError), writing(path):
            pass
    finally:
        leave.set()
        holder.join()
    assert_holds(path)


def test_no_rows_and_no_layers_are_fine(tmp_path):
    with writing(tmp_path / "b.h5", ids=[], digests=DIGESTS[:0], layers={}):
        pass
    with BoundaryCache.open(tmp_path / "b.h5", "key") as cache:
        activations, layers = cache.batch(0, [])
    assert activations.shape == (0, *SHAPE)
    assert layers == {}


def test_ids_that_are_no_utf8_are_kept(tmp_path):
    ids = [os.fsdecode(b"caf\xe9.jpg")]
    few = {"ids": ids, "digests": DIGESTS[:1], "shape": (2,), "layers": {}, "views": 1}
    with writing(tmp_path / "b.h5", **few) as writer:
        writer.put(0, [0], np.ones((1, 2)), {})
    with BoundaryCache.open(tmp_path / "b.h5", "key") as cache:
        assert list(cache.contents.ids) == ids
