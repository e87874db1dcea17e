"""Places that fail: a full disk, a folder that cannot be written, inputs that vanish."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from embed_command import BROKEN, away, ended, rows_of
from small_world import name_of, write_pictures

from pipeline.cache import CacheLock, EmbeddingStore, PartFolder
from pipeline.errors import CacheError


@pytest.fixture
def command(commands):
    return commands["from nothing"]


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own, with a function that mounts it anew with other options."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("only root may mount a disk")
    yield (
        place,
        lambda options: subprocess.run(["mount", "-o", f"remount,{options}", place], check=True),
    )
    subprocess.run(["umount", "-l", place], check=True)


def finish(command, cache: Path, said: Path) -> None:
    """Give the same command again, and compare with one that was never disturbed."""
    assert ended(command.start(cache, said)) == 0, said.read_text()
    assert list(rows_of(cache).items()) == list(command.after.items())
    assert [found.name for found in cache.parent.iterdir()] == ["cache.h5"]


@pytest.mark.parametrize("pages", [3, 7, 11])
def test_a_disk_that_fills_up_keeps_what_is_finished(command, disk, tmp_path, pages):
    """It is too small from the beginning, or fills up in a part or in the merge."""
    place, remount = disk
    remount(f"size={4 * pages}k")
    cache, said = place / "cache.h5", tmp_path / "said"
    assert ended(command.start(cache, said)) == 1
    last = said.read_text().splitlines()[-1]
    assert "No space left on device. " in last or "MB are free there. Make room" in last
    assert not cache.exists()
    kept = len(PartFolder(cache).read().sound)
    assert not list(place.rglob(".*.tmp"))
    remount("size=1m")
    finish(command, cache, said)
    assert (f"going on: {kept} of 6 batches are finished" in said.read_text()) == (kept > 0)


@pytest.mark.parametrize("limit", [1_000, 6_000])
def test_a_file_that_may_not_grow_keeps_what_is_finished(command, tmp_path, limit):
    cache, said = tmp_path / "run" / "cache.h5", tmp_path / "said"
    cache.parent.mkdir()
    assert ended(command.start(cache, said, limit=limit)) == 1
    last = said.read_text().splitlines()[-1]
    assert "File too large. Make room or give another place; what was finished is kept" in last
    assert not cache.exists()
    finish(command, cache, said)


def test_a_cache_on_a_disk_that_cannot_be_written_is_read_and_not_changed(commands, disk, tmp_path):
    command = commands["onto a cache"]
    place, remount = disk
    cache, said = command.begin(place / "run"), tmp_path / "said"
    remount("ro")
    assert ended(command.start(cache, said)) == 1
    last = said.read_text().splitlines()[-1]
    assert last == (
        f"pipeline: cannot write {cache}: Read-only file system. Give a place in a folder that "
        "can be written, on a disk with room."
    )
    assert rows_of(cache) == command.before
    remount("rw")
    finish(command, cache, said)


def test_a_cache_below_a_file_is_refused(command, tmp_path):
    (tmp_path / "file").write_text("no folder")
    cache, said = tmp_path / "file" / "cache.h5", tmp_path / "said"
    assert ended(command.start(cache, said)) == 1
    assert said.read_text().splitlines()[-1] == (
        f"pipeline: cannot write {cache}: its folder is a file. Give a place in a folder that "
        "can be written, on a disk with room."
    )


def test_a_lock_that_cannot_be_made_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CacheError, match=r"cannot write .*cache\.h5: its folder is a file\. Give"):
        CacheLock(tmp_path / "file" / "cache.h5").__enter__()


@pytest.fixture
def photos(command, tmp_path):
    """Pictures of its own, for a test that loses them."""
    return shutil.copytree(command.photos, tmp_path / "photos")


def test_files_that_vanish_after_they_were_listed_stand_in_the_ledger(command, photos, tmp_path):
    gone = [name_of(seed) for seed in (2, 7, 22)]
    own = replace(command, photos=photos)
    cache, said = own.begin(tmp_path / "run"), tmp_path / "said"
    lost = tuple(photos / name for name in gone)
    assert ended(own.start(cache, said, moment=1, loses=lost)) == 0, said.read_text()
    assert said.read_text().startswith("24 images")
    with EmbeddingStore.open(cache) as store:
        failed = {failure.id: failure.reason for failure in store.failed}
    assert failed.keys() == {*gone, BROKEN}
    assert {failed[name] for name in gone} == {"no such file"}
    expected = {id: row for id, row in command.after.items() if id not in gone}
    assert list(rows_of(cache).items()) == list(expected.items())
    for path in lost:
        away(path).rename(path)
    finish(own, cache, said)


def test_a_source_that_is_lost_in_the_middle_is_tried_again(command, photos, tmp_path):
    write_pictures(photos, range(30, 90))  # more than are read ahead
    whole, said = command.begin(tmp_path / "whole"), tmp_path / "said"
    assert ended(replace(command, photos=photos).start(whole, said)) == 0, said.read_text()
    own = replace(command, photos=photos, after=rows_of(whole))
    cache = own.begin(tmp_path / "run")
    assert ended(own.start(cache, said, moment=6, loses=(photos,))) == 0, said.read_text()
    with EmbeddingStore.open(cache) as store:
        failed = {failure.id: failure.reason for failure in store.failed}
    found = rows_of(cache)
    assert found
    assert all(own.after[id] == row for id, row in found.items())
    assert failed.keys() - {BROKEN} == own.after.keys() - found.keys() != set()
    assert {reason for id, reason in failed.items() if id != BROKEN} == {"no such file"}
    assert ended(own.start(cache, said)) == 1  # still away: nothing is dropped
    assert str(photos) in said.read_text()
    assert rows_of(cache) == found
    away(photos).rename(photos)
    finish(own, cache, said)
