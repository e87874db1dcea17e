"""A kill or a full disk at any moment: the cache is absent, old, or new, and whole."""

import os
import resource
import signal
import threading

import h5py
import numpy as np
import pytest
from cache_making import (
    LAYERS,
    SPECS,
    assert_holds,
    embed,
    ids_of,
    in_child,
    labels_of,
    write_batch,
)

from pipeline.cache import EmbeddingStore, PartFolder, merge
from pipeline.durable import make_folder_durably, write_durably
from pipeline.errors import CacheError

OLD = {id: f"old {id}" for id in ids_of(6)}
NEW = {id: f"new {id}" for id in ids_of(10)}
MOMENTS = ("fsync", "replace", "unlink", "rmdir")


def die_at(moment: int, before: bool):
    """Let the process die right before or after its n-th call that changes the disk."""
    count = 0

    def dying(call):
        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            if before and count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(*args, **kwargs)
            finally:
                if count == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        return wrapped

    for name in MOMENTS:
        setattr(os, name, dying(getattr(os, name)))


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("there", [True, False], ids=["a cache was there", "none was there"])
def test_a_kill_at_any_call_to_the_disk_loses_nothing(tmp_path, before, there):
    whole = tmp_path / "whole.h5"
    embed(whole, NEW, targets=labels_of(10))
    with h5py.File(whole) as file:
        expected = {layer: file["layers"][layer][()].tobytes() for layer in LAYERS}
    moment, killed = 1, -signal.SIGKILL
    while killed == -signal.SIGKILL:
        path = tmp_path / f"run {moment}" / "cache.h5"
        path.parent.mkdir()
        if there:
            embed(path, OLD)

        def work(path=path, moment=moment):
            die_at(moment, before)
            embed(path, NEW, targets=labels_of(10))

        killed = in_child(work)
        if path.exists():
            with EmbeddingStore.open(path) as store:
                files = OLD if len(store) == len(OLD) else NEW
            assert_holds(path, files)
        else:
            assert not there
        embed(path, NEW, targets=labels_of(10))
        assert_holds(path, NEW)
        with h5py.File(path) as file:
            for layer, content in expected.items():
                assert file["layers"][layer][()].tobytes() == content
            assert file["ids"].asstr()[()].tolist() == list(NEW)
        assert [found.name for found in path.parent.iterdir()] == ["cache.h5"]
        moment += 1
    assert killed == 0
    assert moment > 14  # three parts and a merge, each with its fsyncs and renames


def test_parts_that_were_finished_before_a_kill_are_not_made_again(tmp_path):
    path = tmp_path / "cache.h5"

    def work():
        die_at(9, before=True)
        embed(path, NEW)

    assert in_child(work) == -signal.SIGKILL
    parts = PartFolder(path).read().sound
    assert [part.first_row for part in parts] == [0, 4]
    stamps = [part.path.stat().st_ino for part in parts]
    merged = [*parts, write_batch(PartFolder(path), 8, dict(list(NEW.items())[8:]))]
    assert [part.path.stat().st_ino for part in parts] == stamps
    merge(path, ids=list(NEW), layers=LAYERS, specs=SPECS, parts=merged)
    assert_holds(path, NEW)


@pytest.mark.parametrize("limit", [100, 4096, 6000, 9000, 12_000, 30_000])
def test_a_full_disk_in_the_merge_keeps_the_parts_and_the_old_cache(tmp_path, limit):
    path = tmp_path / "cache.h5"
    embed(path, OLD)
    files = {id: id for id in ids_of(3000)}
    parts = [write_batch(PartFolder(path), 0, files)]

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(CacheError, match=r"cannot write .*cache\.h5: .*same command continues"):
            merge(path, ids=list(files), layers=LAYERS, specs=SPECS, parts=parts)

    assert in_child(work) == 0
    assert_holds(path, OLD)
    assert PartFolder(path).count() == 1
    assert sorted(found.name for found in tmp_path.iterdir()) == ["cache.h5", "cache.h5.parts"]
    embed(path, files, batch=3000)
    assert_holds(path, files)


def test_a_full_disk_in_a_part_leaves_no_half_part(tmp_path):
    folder = PartFolder(tmp_path / "cache.h5")
    write_batch(folder, 0, OLD)

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with pytest.raises(CacheError, match=r"File too large\. Make room or give another place"):
            write_batch(folder, 6, NEW)

    assert in_child(work) == 0
    assert [part.first_row for part in folder.read().sound] == [0]
    assert len(list(folder.path.iterdir())) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CacheError, match="cannot make the folder"):
        write_batch(PartFolder(tmp_path / "cache.h5"), 0, OLD)


def test_a_parts_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "cache.h5.parts").write_text("a file")
    with pytest.raises(CacheError, match="cannot make the folder"):
        write_batch(PartFolder(tmp_path / "cache.h5"), 0, OLD)


def test_every_open_during_renames_sees_the_old_or_the_new_cache(tmp_path):
    path = tmp_path / "cache.h5"
    worlds = [
        {"net/x": np.full((n, 2), n, np.float32)} for n in (3, 4)
    ]  # each row tells how many there are
    EmbeddingStore.from_arrays(worlds[0], list("abc"), path=path).close()
    finished = threading.Event()

    def write():
        for turn in range(60):
            world = worlds[turn % 2]
            EmbeddingStore.from_arrays(world, list("abcd")[: 3 + turn % 2], path=path).close()
        finished.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not finished.is_set():
        with EmbeddingStore.open(path) as store:
            X, _ = store.matrix()
            assert (len(store) == X).all()
            seen.add(len(store))
    writer.join()
    assert seen == {3, 4}


def test_a_durable_write_that_raises_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), write_durably(path) as temporary:
        temporary.write_text("new\udcff")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_made_with_its_parents(tmp_path):
    make_folder_durably(tmp_path / "a" / "b")
    make_folder_durably(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
