"""embed(): what stands in the cache, and what the next call with the same cache does."""

import logging
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from PIL import Image
from small_world import (
    WIDTHS,
    EagerBackbone,
    assert_same_cache,
    by_hand,
    environment,
    ids_in,
    layer_in,
    name_of,
    pixels,
    set_back,
    small_backbone,
    write_pictures,
)

from pipeline.backbones import load_backbone
from pipeline.cache import CacheLock, EmbeddingStore, PartFolder
from pipeline.config import EmbedOptions
from pipeline.embedding import EmbeddingJob, embed
from pipeline.errors import BadInputError, CacheError, CacheMismatchError, InputError
from pipeline.samples import SampleSet

FLOAT32 = EmbedOptions(precision="float32")


def run(source, cache, backbones=None, *, keep=False, options=FLOAT32):
    """Embed a folder or a sample set, and give the summary."""
    samples = source if isinstance(source, SampleSet) else SampleSet.from_folder(source)
    backbones = small_backbone() if backbones is None else backbones
    job = EmbeddingJob(samples, cache, options, backbones, keep=keep)
    with CacheLock(cache):
        job.prepare()
        return job.execute()


@pytest.fixture
def photos(tmp_path):
    return write_pictures(tmp_path / "photos", range(12))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache.h5"


def count(summary) -> int:
    """Rows that went through the network."""
    return summary.rows - summary.reused


# ------------------------------------------------------------------------- what stands there


def test_the_cache_holds_what_plain_hooks_give_for_every_file_in_order(photos, cache):
    samples = SampleSet.from_folder(photos)
    store = embed(samples, small_backbone(), cache, options=FLOAT32)
    assert store.ids == samples.ids == tuple(sorted(map(name_of, range(12))))
    assert store.layers == {f"small/{tap}": width for tap, width in WIDTHS.items()}
    decoded = [np.asarray(Image.open(photos / name).convert("RGB")) for name in ids_in(cache)]
    for tap, expected in by_hand(small_backbone(), decoded).items():
        found = layer_in(cache, f"small/{tap}")
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, expected, rtol=3e-3, atol=2e-3)
    assert store.targets["label"].values.tolist() == [name[0] for name in samples.ids]
    store.close()


def test_batch_sizes_give_the_same_file_bit_for_bit(photos, tmp_path):
    for size in ("1", "7", "64"):
        run(photos, tmp_path / f"{size}.h5", options=EmbedOptions(batch_size=size))
    assert_same_cache(tmp_path / "1.h5", tmp_path / "7.h5")
    assert_same_cache(tmp_path / "1.h5", tmp_path / "64.h5")


def test_duplicates_in_one_source_are_rows_of_equal_values(tmp_path, cache):
    write_pictures(tmp_path / "photos", {"a/1.png": 1, "a/2.png": 2, "b/1.png": 1})
    run(tmp_path / "photos", cache)
    values = layer_in(cache, "small/high")
    assert ids_in(cache) == ["a/1.png", "a/2.png", "b/1.png"]
    assert np.array_equal(values[0], values[2])
    assert not np.array_equal(values[0], values[1])


def test_the_summary_counts_and_its_seconds_add_up(photos, cache):
    summary = run(photos, cache)
    assert (summary.rows, summary.failed, summary.reused) == (12, 0, 0)
    assert list(summary.layers) == ["small/low", "small/high", "small/top"]
    seconds = summary.seconds
    parts = sum(seconds[name] for name in ("start", "forward", "write", "wait"))
    assert parts <= seconds["total"] + 0.01
    assert parts > 0.5 * seconds["total"]
    expected = 12 / (seconds["total"] - seconds["start"])
    assert summary.images_per_second == pytest.approx(expected)
    assert summary.limit in ("start", "decode", "forward", "write")


def test_float32_is_stored_when_asked_for(photos, cache):
    run(photos, cache, options=EmbedOptions(store_dtype="float32", precision="float32"))
    decoded = [np.asarray(Image.open(photos / name)) for name in ids_in(cache)]
    found = layer_in(cache, "small/high")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(small_backbone(), decoded)["high"], atol=1e-5)


# ----------------------------------------------------------------- the same, and a little more


def test_the_same_call_again_computes_and_writes_nothing(photos, cache):
    first = run(photos, cache)
    before = cache.stat()
    again = run(photos, cache)
    assert count(first) == 12
    assert count(again) == 0
    assert again.images_per_second is None
    after = cache.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(path.name for path in cache.parent.iterdir()) == ["cache.h5", "photos"]


def test_only_new_files_are_embedded(photos, cache, tmp_path):
    run(photos, cache)
    write_pictures(photos, [20, 21])
    write_pictures(photos, {"a/!first.png": 22})
    assert count(run(photos, cache)) == 3
    run(photos, tmp_path / "afresh.h5")
    assert_same_cache(cache, tmp_path / "afresh.h5")


def test_a_changed_file_is_embedded_again(photos, cache, tmp_path):
    run(photos, cache)
    write_pictures(photos, {name_of(4): 99})
    assert count(run(photos, cache)) == 1
    run(photos, tmp_path / "afresh.h5")
    assert_same_cache(cache, tmp_path / "afresh.h5")


def test_a_touched_file_is_read_and_copied(photos, cache):
    run(photos, cache)
    before = layer_in(cache, "small/high")
    set_back(photos / name_of(4))
    assert count(run(photos, cache)) == 0
    assert np.array_equal(layer_in(cache, "small/high"), before)
    with h5py.File(cache) as file:
        row = ids_in(cache).index(name_of(4))
        assert file["inputs"]["mtime_ns"][row] == (photos / name_of(4)).stat().st_mtime_ns
    stamp = cache.stat().st_mtime_ns
    run(photos, cache)  # and now its date is known
    assert cache.stat().st_mtime_ns == stamp


def test_a_renamed_file_keeps_its_row_and_takes_the_label_of_its_new_folder(photos, cache):
    run(photos, cache)
    row = layer_in(cache, "small/high")[ids_in(cache).index(name_of(4))]
    (photos / name_of(4)).rename(photos / "b/moved.png")
    assert count(run(photos, cache)) == 0
    place = ids_in(cache).index("b/moved.png")
    assert np.array_equal(layer_in(cache, "small/high")[place], row)
    with EmbeddingStore.open(cache) as store:
        assert store.targets["label"].values[place] == "b"
    assert name_of(4) not in ids_in(cache)


def test_all_files_renamed_are_nothing_lost(photos, cache):
    run(photos, cache)
    before = layer_in(cache, "small/high")
    (photos / "a").rename(photos / "c")
    (photos / "b").rename(photos / "d")
    assert count(run(photos, cache)) == 0
    assert np.array_equal(layer_in(cache, "small/high"), before)


def test_all_files_renamed_are_nothing_lost_when_a_layer_is_new(photos, cache):
    run(photos, cache, options=EmbedOptions(layers="low", precision="float32"))
    before = layer_in(cache, "small/low")
    (photos / "a").rename(photos / "c")
    (photos / "b").rename(photos / "d")
    run(photos, cache, options=EmbedOptions(layers="top"))
    assert layer_in(cache, "small/low").tobytes() == before.tobytes()
    assert {name[0] for name in ids_in(cache)} == {"c", "d"}


def test_a_removed_file_is_dropped(photos, cache, caplog):
    run(photos, cache)
    (photos / name_of(4)).unlink()
    with caplog.at_level(logging.INFO):
        assert count(run(photos, cache)) == 0
    assert ids_in(cache) == sorted(name_of(seed) for seed in range(12) if seed != 4)
    assert "gone from the source, and from the cache: 1 ids" in caplog.messages


def test_dropping_more_than_a_tenth_is_refused_unless_pruned(photos, cache):
    run(photos, cache)
    for seed in (4, 5):
        (photos / name_of(seed)).unlink()
    with pytest.raises(
        CacheError,
        match=r"2 of the 12 rows of .*cache\.h5 are not in this source, and would be dropped\. "
        r"Give the source it was made from, another cache, or --prune to drop them\.",
    ):
        run(photos, cache)
    assert len(ids_in(cache)) == 12
    run(photos, cache, options=EmbedOptions(prune=True))
    assert len(ids_in(cache)) == 10


def test_rows_of_other_inputs_stay_when_kept(photos, cache, tmp_path):
    run(photos, cache)
    run(photos, cache, keep=True)
    more = write_pictures(tmp_path / "more", [30, 31])
    assert count(run(more, cache, keep=True)) == 2
    assert ids_in(cache) == [*sorted(name_of(seed) for seed in range(12)), "a/030.png", "b/031.png"]
    stamp = cache.stat().st_mtime_ns
    run(more, cache, keep=True)
    run(SampleSet.from_folder(photos).subset([3]), cache, keep=True)
    assert cache.stat().st_mtime_ns == stamp


def test_changed_labels_embed_nothing_and_are_updated(photos, cache):
    labels = {"label": ["x", "y"] * 6, "age": [1.5, None] * 6, "class": [1, 2, None] * 4}
    samples = SampleSet.from_list(sorted(photos.rglob("*.png")), labels)
    run(samples, cache)
    before, stamp = layer_in(cache, "small/low"), cache.stat().st_mtime_ns
    assert count(run(samples, cache)) == 0
    assert cache.stat().st_mtime_ns == stamp
    labels["label"] = ["x", "z"] * 6
    assert count(run(SampleSet.from_list(samples.sources, labels), cache)) == 0
    with h5py.File(cache) as file:
        assert file["targets/label"].asstr()[()].tolist() == ["x", "z"] * 6
        assert np.array_equal(file["targets/age"][()], [1.5, np.nan] * 6, equal_nan=True)
    assert np.array_equal(layer_in(cache, "small/low"), before)


def test_pictures_in_memory_are_known_again(cache):
    sources = [pixels(seed) for seed in range(4)] + [Image.fromarray(pixels(4))]
    assert count(run(SampleSet.from_list(sources), cache)) == 5
    stamp = cache.stat().st_mtime_ns
    assert count(run(SampleSet.from_list(sources), cache)) == 0
    assert cache.stat().st_mtime_ns == stamp  # not even the network was built
    sources[2] = pixels(50)
    assert count(run(SampleSet.from_list(sources), cache)) == 1
    layers = EmbedOptions(precision="float32", layers="all")
    assert count(run(SampleSet.from_list(sources), cache, options=layers)) == 0


# -------------------------------------------------------------------------- layers, backbones


def test_a_new_layer_is_appended_and_the_old_ones_stay_as_they_are(photos, cache, tmp_path):
    some = EmbedOptions(layers="low,top", precision="float32")
    run(photos, cache, options=some)
    before = {name: layer_in(cache, f"small/{name}") for name in ("low", "top")}
    set_back(photos / name_of(1))
    (photos / name_of(3)).rename(photos / "b/moved.png")
    summary = run(photos, cache, options=EmbedOptions(layers="high"))
    assert list(summary.layers) == ["small/low", "small/high", "small/top"]
    order = [name_of(3) if name == "b/moved.png" else name for name in ids_in(cache)]
    rows = [sorted(map(name_of, range(12))).index(name) for name in order]
    for name, values in before.items():
        assert layer_in(cache, f"small/{name}").tobytes() == values[rows].tobytes()
    run(photos, tmp_path / "afresh.h5")
    np.testing.assert_allclose(
        layer_in(cache, "small/high"), layer_in(tmp_path / "afresh.h5", "small/high"), rtol=2e-3
    )


def test_new_rows_get_every_layer_that_the_cache_holds(photos, cache):
    run(photos, cache, options=EmbedOptions(layers="low,high"))
    write_pictures(photos, [20])
    summary = run(photos, cache, options=EmbedOptions(layers="top"))
    assert list(summary.layers) == ["small/low", "small/high", "small/top"]
    assert len(ids_in(cache)) == len(layer_in(cache, "small/top")) == 13


def test_a_backbone_is_appended_and_new_rows_get_all_of_both(photos, cache):
    network = load_backbone("timm/test_resnet", weights=None, image_size=32).network
    resnet = EagerBackbone("timm/test_resnet", network)
    run(photos, cache, resnet, options=EmbedOptions(layers="layer1", precision="float32"))
    before = layer_in(cache, "timm/test_resnet/layer1").tobytes()
    assert count(run(photos, cache)) == 12
    assert layer_in(cache, "timm/test_resnet/layer1").tobytes() == before
    write_pictures(photos, [20])
    summary = run(photos, cache)  # the first one is built from its name, as the cache says
    assert count(summary) == 1
    assert [*summary.layers] == [
        "timm/test_resnet/layer1",
        "small/low",
        "small/high",
        "small/top",
    ]
    decoded = [np.asarray(Image.open(photos / name)) for name in ids_in(cache)]
    for backbone in (resnet, small_backbone()):
        expected = by_hand(backbone, decoded)
        for layer in summary.layers:
            owner, _, tap = layer.rpartition("/")
            if owner == backbone.name:
                np.testing.assert_allclose(
                    layer_in(cache, layer), expected[tap], rtol=5e-3, atol=5e-3
                )


def test_several_backbones_stand_in_one_cache(photos, cache, tmp_path):
    both = [small_backbone(), small_backbone(7, "other")]
    run(photos, cache, both)
    for backbone in both:
        alone = tmp_path / f"{backbone.name}.h5"
        run(photos, alone, backbone)
        for tap in WIDTHS:
            layer = f"{backbone.name}/{tap}"
            assert layer_in(cache, layer).tobytes() == layer_in(alone, layer).tobytes()
    write_pictures(photos, [20])
    assert count(run(photos, cache, both[::-1])) == 1
    with EmbeddingStore.open(cache) as store:
        assert [name.partition("/")[0] for name in store.layers] == ["small"] * 3 + ["other"] * 3
        assert store.matrix()[0].shape == (13, 26)


# ----------------------------------------------------------------------------------- bad inputs


def spoil(photos):
    (photos / name_of(2)).write_bytes(b"")
    cut = photos / name_of(5)
    cut.write_bytes(cut.read_bytes()[:100])
    (photos / name_of(8)).write_text("no picture at all")
    return [name_of(2), name_of(5), name_of(8)]


def test_bad_files_stand_in_the_ledger_and_rows_do_not_shift(photos, cache, tmp_path):
    run(photos, tmp_path / "sound.h5")
    sound = dict(
        zip(
            ids_in(tmp_path / "sound.h5"), layer_in(tmp_path / "sound.h5", "small/top"), strict=True
        )
    )
    bad = spoil(photos)
    summary = run(photos, cache)
    assert (summary.rows, summary.failed) == (9, 3)
    with h5py.File(cache) as file:
        ledger = {entry["id"].decode(): entry for entry in file["failed"][()]}
        assert sorted(ledger) == sorted(bad)
        for name, entry in ledger.items():
            assert entry["reason"]
            assert entry["size"] == (photos / name).stat().st_size
        labels = file["targets/label"].asstr()[()].tolist()
    assert labels == [name[0] for name in ids_in(cache)]
    for name, values in zip(ids_in(cache), layer_in(cache, "small/top"), strict=True):
        assert np.array_equal(values, sound[name])


def test_a_bad_file_is_tried_again_only_when_it_has_changed(photos, cache):
    spoil(photos)
    run(photos, cache)
    stamp = cache.stat().st_mtime_ns
    again = run(photos, cache)
    assert (count(again), again.failed) == (0, 3)
    assert cache.stat().st_mtime_ns == stamp
    write_pictures(photos, [5])
    mended = run(photos, cache)
    assert (count(mended), mended.failed) == (1, 2)
    assert name_of(5) in ids_in(cache)


def test_a_reason_outside_the_file_is_tried_again(photos, cache):
    gone = photos / "gone.png"
    samples = SampleSet.from_list([*sorted(photos.rglob("*.png")), gone])
    assert run(samples, cache).failed == 1
    write_pictures(photos, {"gone.png": 40})
    summary = run(samples, cache)
    assert (count(summary), summary.failed) == (1, 0)


def test_a_row_whose_file_went_bad_leaves_for_the_ledger(photos, cache):
    run(photos, cache)
    (photos / name_of(2)).write_bytes(b"broken")
    summary = run(photos, cache)
    assert (summary.rows, summary.failed, count(summary)) == (11, 1, 0)
    assert name_of(2) not in ids_in(cache)


def test_fail_names_all_and_keeps_what_is_finished(photos, cache):
    bad = spoil(photos)
    options = EmbedOptions(on_bad_input="fail", precision="float32")
    with pytest.raises(BadInputError, match=r"3 inputs cannot be embedded:") as error:
        run(photos, cache, options=options)
    assert [name for name, _ in error.value.failures] == sorted(bad)
    for name in bad:
        assert name in str(error.value)
    assert not cache.exists()
    assert PartFolder(cache).count() > 0
    with pytest.raises(CacheError, match="is not finished"):
        EmbeddingStore.open(cache)
    for seed in (2, 5, 8):
        (photos / name_of(seed)).unlink()
    summary = run(photos, cache, options=options)
    assert count(summary) == 0  # all nine were there
    assert (summary.rows, summary.failed) == (9, 0)


def test_fail_names_also_what_an_earlier_run_has_skipped(photos, cache):
    bad = spoil(photos)
    run(photos, cache)
    with pytest.raises(BadInputError) as error:
        run(photos, cache, options=EmbedOptions(on_bad_input="fail"))
    assert [name for name, _ in error.value.failures] == sorted(bad)


def test_when_all_are_bad_the_commonest_reason_is_said(tmp_path, cache):
    for name in ("1.png", "2.png", "3.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "4.png").write_text("no picture")
    samples = SampleSet.from_list([tmp_path / f"{n}.png" for n in (1, 2, 3, 4)])
    with pytest.raises(
        InputError,
        match=r"none of the 4 inputs can be used; the commonest reason, 3 times: .+\. Give files",
    ):
        run(samples, cache)
    assert not cache.exists()
    assert not PartFolder(cache).path.exists()


def test_inputs_that_nobody_could_read_stand_in_the_ledger(photos, cache, tmp_path):
    rows = ["path,label", *(f"photos/{name_of(seed)},x" for seed in range(3)), ",y", "../out.png,z"]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(rows))
    samples = SampleSet.from_table(table)
    assert len(samples.failed) == 2
    assert run(samples, cache).failed == 2
    with EmbeddingStore.open(cache) as store:
        assert [(entry.id, entry.reason) for entry in store.failed] == list(samples.failed)
    stamp = cache.stat().st_mtime_ns
    run(samples, cache)
    assert cache.stat().st_mtime_ns == stamp
    with pytest.raises(BadInputError, match="2 inputs cannot be embedded"):
        run(samples, cache, options=EmbedOptions(on_bad_input="fail"))
    table.write_text("\n".join(rows[:4]))
    assert run(SampleSet.from_table(table), cache).failed == 0


# ------------------------------------------------------------------------ what is said and not


def test_rows_layers_and_bytes_are_said_before_the_work(photos, cache, caplog):
    with caplog.at_level(logging.INFO):
        run(photos, cache)
    assert "12 images to embed with small in float32: 3 layers, 0.0 MB" in caplog.messages


def test_the_outlook_tells_new_held_and_failed_apart(photos, cache):
    (photos / name_of(2)).write_bytes(b"")
    run(photos, cache)
    write_pictures(photos, [20, 21, 22])
    job = EmbeddingJob(SampleSet.from_folder(photos), cache, FLOAT32, small_backbone())
    job.prepare()
    assert job.outlook() == (
        "3 images to embed with small in float32: 3 layers, 0.0 MB, "
        "1 failed before, 11 held already"
    )
    run(photos, cache)
    job = EmbeddingJob(SampleSet.from_folder(photos), cache, FLOAT32, small_backbone())
    job.prepare()
    assert job.outlook() == "nothing to embed, 1 failed before, 14 held already"
    assert job.plan.fresh == []


def test_a_disk_without_room_is_said_before_the_work(tmp_path, cache):
    wide = load_backbone(
        _Wide(), name="wide", layers=["wide"], preprocess=small_backbone().preprocess
    )
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    rows = free // (3 * 1000 * 1000 * 2) + 1
    if rows > 200_000:
        pytest.skip("the disk is too large for this test")
    samples = SampleSet.from_list([np.zeros((2, 2, 3), np.uint8)] * rows)
    with pytest.raises(CacheError, match=r"MB while it is made, but only .* MB are free there\."):
        run(samples, cache, wide)


def _Wide():  # noqa: N802
    from torch import nn

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Sequential(nn.Upsample((1000, 1000)), nn.Flatten())

        def forward(self, x):
            return self.wide(x)

    return Wide()


RERUN = """
import sys
from pathlib import Path
from pipeline.embedding import EmbeddingJob
from pipeline.config import EmbedOptions
from pipeline.samples import SampleSet
job = EmbeddingJob(SampleSet.from_folder(sys.argv[1]), Path(sys.argv[2]), EmbedOptions())
job.prepare()
summary = job.execute()
loaded = {"torch", "openvino", "timm", "sklearn"} & set(sys.modules)
print(summary.rows, summary.reused, summary.images_per_second, sorted(loaded))
"""


@pytest.mark.pretrained
def test_a_rerun_with_a_bundled_backbone_does_not_even_load_torch(tmp_path, cache):
    photos = write_pictures(tmp_path / "photos", range(3))
    run(photos, cache, "efficientnet_lite0", options=EmbedOptions(image_size=64, layers="blocks.0"))
    output = subprocess.run(
        [sys.executable, "-c", RERUN, photos, cache],
        env=environment(), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert output.strip() == "3 3 None []"


def test_another_source_of_the_same_cache_is_a_mismatch_never_a_mixture(photos, cache):
    run(photos, cache)
    with pytest.raises(CacheMismatchError, match="weights_digest is"):
        run(photos, cache, small_backbone(3))


def test_rows_are_not_dropped_in_silence_because_many_inputs_broke(tmp_path, cache):
    photos = write_pictures(tmp_path / "photos", range(6))
    run(photos, cache)
    broken = sorted(photos.rglob("*.png"))[:2]
    for path in broken:
        path.write_bytes(b"")
    with pytest.raises(CacheError) as error:
        run(photos, cache)
    first = broken[0].relative_to(photos).as_posix()
    assert str(error.value) == (
        f"2 of the 6 rows of {cache} would be dropped, for their inputs cannot be used any more: "
        f"{first!r} (the file is empty), for instance. Mend them, or give --prune to drop the rows."
    )
    with EmbeddingStore.open(cache) as store:
        assert len(store) == 6
    run(photos, cache, options=EmbedOptions(prune=True))
    with EmbeddingStore.open(cache) as store:
        assert (len(store), len(store.failed)) == (4, 2)
