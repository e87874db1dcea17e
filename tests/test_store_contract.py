"""The promises of the cache, end to end: killed and damaged on purpose, read with h5py alone."""

import itertools
import logging
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from embedding_child import DEAD, OPTIONS, at_once, eager_backbone, embed_in_parts, in_child, killed
from small_world import (
    assert_same_cache,
    ids_in,
    layer_in,
    name_of,
    set_back,
    write_pictures,
)

from pipeline.cache import CacheLock, EmbeddingStore, PartFolder
from pipeline.config import EmbedOptions
from pipeline.embedding import EmbeddingJob
from pipeline.errors import CacheDamagedError, CacheMismatchError
from pipeline.samples import SampleSet

IN_THE_MIDDLE = 9
"""Two of the three parts of ten pictures are finished then."""


def run(photos: Path, cache: Path, options: EmbedOptions = OPTIONS):
    """Embed, and give the job and its summary."""
    job = EmbeddingJob(SampleSet.from_folder(photos), cache, options, eager_backbone())
    with CacheLock(cache):
        job.prepare()
        return job, job.execute()


def computed(summary) -> int:
    return summary.rows - summary.reused


def parts_of(cache: Path) -> list[Path]:
    return sorted(PartFolder(cache).path.iterdir())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = write_pictures(tmp_path_factory.mktemp("photos"), range(10))
    (folder / name_of(3)).write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """What an uninterrupted run makes."""
    cache = tmp_path_factory.mktemp("whole") / "cache.h5"
    embed_in_parts(photos, cache)
    return cache


@pytest.fixture
def own(photos, tmp_path):
    """Pictures of its own, for a test that changes them."""
    return shutil.copytree(photos, tmp_path / "photos")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache.h5"


@pytest.fixture
def interrupted(own, cache):
    """A run that died between its second and its third part."""
    assert in_child(killed, IN_THE_MIDDLE, own, cache) == DEAD
    assert len(PartFolder(cache).read().sound) == 2
    return cache


# --------------------------------------------------------- 1: a kill loses seconds, never rows


def test_a_kill_at_any_moment_and_the_same_call_again_give_the_same_file(photos, whole, tmp_path):
    for moment in itertools.count(1, 2):
        cache = tmp_path / f"{moment}" / "cache.h5"
        code = in_child(killed, moment, photos, cache)
        if cache.exists():  # absent or whole
            assert_same_cache(cache, whole)
        run(photos, cache)
        assert_same_cache(cache, whole)
        assert [path.name for path in cache.parent.iterdir()] == ["cache.h5"]
        if code == 0:
            break
        assert code == DEAD
    assert moment > 20  # three parts and a merge, each with its fsyncs and renames


def test_a_kill_while_a_layer_and_a_row_are_appended_keeps_the_old_cache(own, tmp_path):
    cache, whole = tmp_path / "old.h5", tmp_path / "whole.h5"
    embed_in_parts(own, cache, "low")
    old = cache.read_bytes()
    write_pictures(own, [20])
    whole.write_bytes(old)
    embed_in_parts(own, whole, "high")
    for moment in itertools.count(1, 6):
        cache = tmp_path / f"{moment}" / "cache.h5"
        cache.parent.mkdir()
        cache.write_bytes(old)
        code = in_child(killed, moment, own, cache, "high")
        if cache.read_bytes() != old:
            assert_same_cache(cache, whole)
        embed_in_parts(own, cache, "high")
        assert_same_cache(cache, whole)
        if code == 0:
            break
    assert moment > 20


def test_what_was_finished_is_not_computed_again(own, interrupted, whole, caplog):
    with caplog.at_level(logging.INFO):
        _, summary = run(own, interrupted)
    assert "going on: 2 of 3 batches are finished" in caplog.messages
    assert computed(summary) == 2  # of ten, in batches of four
    assert_same_cache(interrupted, whole)


def test_a_resume_takes_the_batch_size_from_the_parts(own, interrupted, whole):
    _, summary = run(own, interrupted, EmbedOptions(precision="float32"))
    assert computed(summary) == 2
    assert_same_cache(interrupted, whole)


def test_an_interrupt_in_the_middle_is_no_different_from_a_kill(own, cache, whole, monkeypatch):
    monkeypatch.setattr("pipeline.extraction.parts._PART_SECONDS", 0.0)
    calls = itertools.count()

    def interrupted_write(*args, **kwargs):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return write(*args, **kwargs)

    write = PartFolder.write
    monkeypatch.setattr(PartFolder, "write", interrupted_write)
    with pytest.raises(KeyboardInterrupt):
        run(own, cache)
    assert computed(run(own, cache)[1]) == 2
    assert_same_cache(cache, whole)


def test_a_file_added_in_front_does_not_undo_what_is_finished(own, interrupted, tmp_path):
    write_pictures(own, {"a/!first.png": 30})
    _, summary = run(own, interrupted)
    assert computed(summary) == 4 + 3  # the batch of the new file, and the last
    run(own, tmp_path / "afresh.h5")
    assert_same_cache(interrupted, tmp_path / "afresh.h5")


def test_a_file_that_changes_after_the_kill_is_embedded_as_it_is_now(own, interrupted, tmp_path):
    write_pictures(own, {name_of(0): 31})
    run(own, interrupted)
    run(own, tmp_path / "afresh.h5")
    assert_same_cache(interrupted, tmp_path / "afresh.h5")


def test_a_file_put_back_after_the_kill_keeps_the_row_of_the_cache(own, cache, whole):
    """The part of the other content must not win over the cache, which holds the right one."""
    embed_in_parts(own, cache)
    path = own / name_of(0)
    content, then = path.read_bytes(), path.stat().st_mtime_ns
    write_pictures(own, {name_of(0): 31})
    assert next(moment for moment in range(1, 30) if _dies_with_a_part(moment, own, cache))
    path.write_bytes(content)
    os.utime(path, ns=(then, then))
    run(own, cache)
    assert_same_cache(cache, whole)
    assert PartFolder(cache).count() == 0


def test_parts_of_another_spec_are_never_reused(own, interrupted):
    with pytest.raises(CacheMismatchError, match="store_dtype is float16 here and float32 there"):
        run(own, interrupted, EmbedOptions(precision="float32", store_dtype="float32"))


def test_a_flipped_bit_in_a_part_is_embedded_again(own, interrupted, whole, caplog):
    part = parts_of(interrupted)[0]
    content = bytearray(part.read_bytes())
    content[-40] ^= 1
    part.write_bytes(content)
    _, summary = run(own, interrupted)
    assert computed(summary) == 4 + 2
    assert any("1 damaged parts" in message for message in caplog.messages)
    assert_same_cache(interrupted, whole)


def test_parts_that_copy_from_a_cache_that_is_gone_are_not_believed(own, tmp_path, cache):
    embed_in_parts(own, cache)
    set_back(own / name_of(0))
    first = next(moment for moment in range(1, 30) if _dies_with_a_part(moment, own, cache))
    assert first
    cache.unlink()
    run(own, cache)
    run(own, tmp_path / "afresh.h5")
    assert_same_cache(cache, tmp_path / "afresh.h5")


def _dies_with_a_part(moment: int, photos: Path, cache: Path) -> bool:
    assert in_child(killed, moment, photos, cache) == DEAD
    return PartFolder(cache).count() > 0


def test_two_runs_at_once_make_one_cache(own, cache, whole):
    assert in_child(at_once, own, cache) == 0
    assert_same_cache(cache, whole)


# ------------------------------------------------- 2: damage is seen, and a merge mends it


def damage(cache: Path, layer: str, row: int) -> None:
    with h5py.File(cache) as file:
        dataset = file[f"layers/{layer}"]
        place = dataset.id.get_offset() + row * dataset.shape[1] * dataset.dtype.itemsize
    content = bytearray(cache.read_bytes())
    content[place] ^= 0x40
    cache.write_bytes(content)


@pytest.mark.parametrize("change", ["a file", "a layer", "a label", "a part"])
def test_a_merge_embeds_damaged_rows_again(own, cache, tmp_path, change, caplog):
    layers = "low,high" if change == "a layer" else None
    embed_in_parts(own, cache, layers)
    damage(cache, "small/high", 2)
    with EmbeddingStore.open(cache) as store, pytest.raises(CacheDamagedError, match="small/high"):
        store.matrix()
    options = OPTIONS
    if change == "a file":
        write_pictures(own, [20])
    if change == "a layer":
        options = EmbedOptions(layers="top")
    if change == "a label":
        (own / name_of(0)).rename(own / "b/000.png")
    if change == "a part":
        shutil.copytree(own, tmp_path / "more")
        write_pictures(tmp_path / "more", [20, 21])
        assert in_child(killed, 7, tmp_path / "more", cache) == DEAD
        assert PartFolder(cache).count()
    run(own, cache, options)
    assert "damaged rows of" in caplog.text
    assert "small/high 0 to 8" in caplog.text
    run(own, tmp_path / "afresh.h5")
    with EmbeddingStore.open(cache) as store:
        assert not store.damaged()
    if change != "a layer":
        assert_same_cache(cache, tmp_path / "afresh.h5")


def test_damage_is_not_looked_for_when_nothing_is_written(own, cache, caplog):
    embed_in_parts(own, cache)
    damage(cache, "small/high", 2)
    stamp = cache.stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        assert computed(run(own, cache)[1]) == 0
    assert (cache.stat().st_mtime_ns, caplog.text) == (stamp, "")


def test_a_new_file_of_damaged_content_is_embedded_not_copied(own, cache, tmp_path):
    embed_in_parts(own, cache)
    damage(cache, "small/high", 2)
    shutil.copyfile(own / name_of(4), own / "a/copy.png")
    run(own, cache)
    run(own, tmp_path / "afresh.h5")
    assert_same_cache(cache, tmp_path / "afresh.h5")


def test_a_damaged_row_without_its_file_is_dropped_when_others_are_kept(own, cache):
    embed_in_parts(own, cache)
    damage(cache, "small/high", 2)
    some = SampleSet.from_folder(write_pictures(cache.parent / "more", [40]))
    job = EmbeddingJob(some, cache, OPTIONS, eager_backbone(), keep=True)
    job.prepare()
    job.execute()
    assert ids_in(cache) == ["a/040.png"]


# -------------------------------------------------------------------- 7: neighbours, and order


def test_the_order_of_the_source_permutes_the_rows_and_changes_no_value(photos, whole, tmp_path):
    samples = SampleSet.from_folder(photos)
    order = np.random.default_rng(0).permutation(len(samples))
    job = EmbeddingJob(samples.subset(order), tmp_path / "cache.h5", OPTIONS, eager_backbone())
    job.prepare()
    job.execute()
    ids = ids_in(tmp_path / "cache.h5")
    places = [ids_in(whole).index(name) for name in ids]
    np.testing.assert_allclose(
        layer_in(tmp_path / "cache.h5", "small/top"),
        layer_in(whole, "small/top")[places],
        rtol=2e-3,
    )
