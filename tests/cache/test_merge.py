"""A merge makes one cache of parts and the old cache, row by row and layer by layer."""

import dataclasses
import hashlib

import h5py
import numpy as np
import pytest
from cache_making import (
    LAYERS,
    SPECS,
    VIT,
    assert_holds,
    embed,
    ids_of,
    inputs_of,
    labels_of,
    vectors,
    write_batch,
)

from pipeline.cache import Column, EmbeddingStore, Failure, PartFolder, merge
from pipeline.errors import CacheDamagedError, CacheError, CacheMismatchError

FILES = {id: f"content of {id}" for id in ids_of(10)}
MORE = {"net/top": 2}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache.h5"


def merged(path, files, parts=(), layers=LAYERS, specs=SPECS, **more):
    with EmbeddingStore.open(path) as old:
        merge(path, ids=list(files), layers=layers, specs=specs, parts=parts, old=old, **more)


def test_the_file_reads_with_h5py_alone(path):
    embed(path, FILES, targets=labels_of(10))
    with h5py.File(path) as file:
        for layer, width in LAYERS.items():
            dataset = file["layers"][layer]
            expected = vectors(list(FILES.values()), layer, width)
            np.testing.assert_array_equal(dataset[()], expected, strict=True)
            assert dataset.chunks is None
            assert dataset.id.get_create_plist().get_nfilters() == 0
            checksum = hashlib.blake2b(expected.tobytes()).digest()[:8]
            assert file["checksums"][layer][()].tolist() == [int.from_bytes(checksum, "little")]
        assert file["ids"].asstr()[()].tolist() == list(FILES)
        assert file["targets/label"].asstr()[:3].tolist() == ["cat", "", "dog"]
        assert file["targets/label"].attrs["kind"] == "class"
        assert len(file["failed"]) == 0


def test_the_parts_are_gone_and_nothing_else_is_left(path):
    embed(path, FILES)
    assert [found.name for found in path.parent.iterdir()] == ["cache.h5"]


def test_rows_stand_in_the_given_order_whatever_the_order_of_the_parts(path):
    folder = PartFolder(path)
    items = list(FILES.items())
    parts = [write_batch(folder, start, dict(items[start : start + 3])) for start in (6, 0, 9, 3)]
    backwards = dict(reversed(items))
    merge(path, ids=list(backwards), layers=LAYERS, specs=SPECS, parts=parts)
    assert_holds(path, backwards)


def test_new_rows_join_those_that_are_there(path):
    embed(path, FILES)
    new = {"aaa/new.jpg": "new", "zzz/new.jpg": "newer"}
    part = write_batch(PartFolder(path), 0, new)
    files = {"aaa/new.jpg": "new", **FILES, "zzz/new.jpg": "newer"}
    merged(path, files, [part])
    assert_holds(path, files)


def test_a_new_layer_joins_those_that_are_there_and_changes_none(path):
    embed(path, FILES)
    part = write_batch(PartFolder(path), 0, FILES, layers=MORE)
    layers = {"net/low": 5, "net/top": 2, "net/high": 3}
    merged(path, FILES, [part], layers=layers)
    assert_holds(path, FILES, layers)


def test_a_new_backbone_joins_with_its_own_spec_and_type(path):
    embed(path, FILES)
    specs = {**SPECS, "timm/vit": dataclasses.replace(VIT["timm/vit"], store_dtype="float32")}
    array = np.linspace(0, 1, 20, dtype=np.float32).reshape(10, 2)
    part = PartFolder(path).write(
        {"timm/vit/cls": array},
        first_row=0,
        ids=list(FILES),
        inputs=inputs_of(list(FILES.values())),
        specs={"timm/vit": specs["timm/vit"]},
    )
    merged(path, FILES, [part], layers={**LAYERS, "timm/vit/cls": 2}, specs=specs)
    with EmbeddingStore.open(path, expect=specs.values()) as store:
        np.testing.assert_array_equal(store.values("cls"), array, strict=True)
        np.testing.assert_array_equal(
            store.values("low"), vectors(list(FILES.values()), "net/low", 5)
        )


def test_a_changed_input_takes_its_new_vector(path):
    embed(path, FILES)
    changed = {ids_of(10)[4]: "another content"}
    part = write_batch(PartFolder(path), 0, changed)
    merged(path, FILES, [part])
    assert_holds(path, {**FILES, **changed})


def test_a_changed_input_never_mixes_with_layers_of_its_old_content(path):
    embed(path, FILES)
    part = write_batch(PartFolder(path), 0, {ids_of(10)[4]: "another content"}, layers=MORE)
    with pytest.raises(CacheError, match=r"no vector of layer net/low for .*00004"):
        merged(path, FILES, [part], layers={**LAYERS, **MORE})
    assert_holds(path, FILES)


def test_a_renamed_input_keeps_its_row(path):
    embed(path, FILES)
    old_name = ids_of(10)[3]
    files = {("renamed.jpg" if id == old_name else id): c for id, c in FILES.items()}
    part = write_batch(
        PartFolder(path), 0, {"renamed.jpg": FILES[old_name]}, copied=["renamed.jpg"]
    )
    assert part.embedded() == []
    merged(path, files, [part])
    assert_holds(path, files)


def test_two_ids_of_the_same_bytes_are_two_rows(path):
    files = {"a": "same", "b": "same", "c": "other"}
    embed(path, files)
    assert_holds(path, files)


def test_rows_that_are_not_named_are_dropped(path):
    embed(path, FILES, targets=labels_of(10))
    files = {id: content for id, content in FILES.items() if not id.endswith("5.jpg")}
    merged(path, files)
    assert_holds(path, files)


def test_labels_change_without_any_part(path):
    embed(path, FILES, targets=labels_of(10))
    targets = {"size/cm": Column.of("number", range(10)), "label": Column.of("class", "x" * 10)}
    merged(path, FILES, targets=targets)
    assert_holds(path, FILES)
    with EmbeddingStore.open(path) as store:
        assert list(store.targets) == ["size/cm", "label"]
        assert store.targets["size/cm"].values.tolist() == list(range(10))
        assert store.targets["label"].values.tolist() == ["x"] * 10


def test_a_failed_input_goes_to_the_ledger_with_its_labels_left_out(path):
    ids = ids_of(4)
    files = {id: FILES[id] for id in ids}
    part = write_batch(PartFolder(path), 0, files, failed={ids[1]: "truncated image"})
    merge(path, ids=ids, layers=LAYERS, specs=SPECS, parts=[part], targets=labels_of(4))
    del files[ids[1]]
    assert_holds(path, files)
    with EmbeddingStore.open(path) as store:
        (failure,) = store.failed
        assert (failure.id, failure.reason, failure.size) == (ids[1], "truncated image", 32)
        assert store.targets["label"].values.tolist() == ["cat", "dog", "cat"]


def test_the_ledger_stays_until_the_input_is_tried_again_or_dropped(path):
    ids = ids_of(4)
    files = {id: FILES[id] for id in ids}
    part = write_batch(PartFolder(path), 0, files, failed={ids[1]: "bad", ids[2]: "worse"})
    merge(path, ids=ids, layers=LAYERS, specs=SPECS, parts=[part])
    merged(path, ids)
    with EmbeddingStore.open(path) as store:
        assert [failure.id for failure in store.failed] == ids[1:3]
    mended = write_batch(PartFolder(path), 0, {ids[1]: "mended"})
    merged(path, [ids[0], ids[1], ids[3]], [mended])
    files = {ids[0]: FILES[ids[0]], ids[1]: "mended", ids[3]: FILES[ids[3]]}
    assert_holds(path, files)
    with EmbeddingStore.open(path) as store:
        assert store.failed == ()


def test_an_input_that_was_mended_between_two_runs_becomes_a_row(path):
    folder = PartFolder(path)
    parts = [
        write_batch(folder, 0, {"a": "broken", "b": "B"}, failed={"a": "truncated"}),
        write_batch(folder, 0, {"a": "mended", "b": "B"}),
    ]
    merge(path, ids=["a", "b"], layers=LAYERS, specs=SPECS, parts=parts)
    assert_holds(path, {"a": "mended", "b": "B"})


def test_what_nobody_tried_to_read_and_where_weights_came_from_are_recorded(path):
    merge(
        path,
        ids=["a"],
        layers=LAYERS,
        specs=SPECS,
        parts=[write_batch(PartFolder(path), 0, {"a": "A"})],
        failed=[Failure("gone.jpg", "file not found")],
        weights={"net": "random"},
    )
    with EmbeddingStore.open(path) as store:
        assert store.failed == (Failure("gone.jpg", "file not found"),)
        assert store.weights == {"net": "random"}
        store.append({"net/low": np.ones((1, 5)), "net/high": np.ones((1, 3))}, ["b"])
        assert store.weights == {"net": "random"}


def test_an_input_that_fails_now_loses_its_row(path):
    embed(path, FILES)
    id = ids_of(1)[0]
    part = write_batch(PartFolder(path), 0, {id: "broken now"}, failed={id: "truncated"})
    merged(path, FILES, [part])
    assert_holds(path, {name: content for name, content in FILES.items() if name != id})


def test_a_cache_of_failures_alone_has_no_rows(path):
    part = write_batch(PartFolder(path), 0, {"a": "A"}, failed={"a": "truncated"})
    merge(path, ids=["a"], layers=LAYERS, specs=SPECS, parts=[part])
    assert_holds(path, {})
    merged(path, ["a"])
    with EmbeddingStore.open(path) as store:
        assert [failure.reason for failure in store.failed] == ["truncated"]
        assert store.matrix()[0].shape == (0, 8)


def test_a_row_without_a_vector_is_an_error_that_names_it(path):
    part = write_batch(PartFolder(path), 0, {"a": "A"})
    with pytest.raises(CacheError, match="no vector for 'b', 'c', 'd' and 1 more"):
        merge(path, ids=list("abcde"), layers=LAYERS, specs=SPECS, parts=[part])
    assert not path.exists()


def test_an_id_that_stands_twice_is_an_error(path):
    part = write_batch(PartFolder(path), 0, {"a": "A", "b": "B"})
    with pytest.raises(CacheError, match="the id 'a' stands twice"):
        merge(path, ids=["a", "b", "a"], layers=LAYERS, specs=SPECS, parts=[part])


def test_nothing_of_another_spec_is_merged(path):
    embed(path, FILES)
    part = write_batch(PartFolder(path), 0, {"a": "A"})
    other = {"net": dataclasses.replace(SPECS["net"], pooling="max")}
    sentence = "pooling is mean here and max there"
    with pytest.raises(CacheMismatchError, match=sentence):
        merged(path, FILES, specs=other)
    with pytest.raises(CacheMismatchError, match=sentence):
        merge(path, ids=["a"], layers=LAYERS, specs=other, parts=[part])


def test_a_damaged_row_of_the_old_cache_is_named_and_not_copied(path):
    files = {id: id for id in ids_of(5000)}
    embed(path, files, batch=5000)
    with h5py.File(path) as file:
        offset = file["layers/net/high"].id.get_offset()
    with path.open("r+b") as file:
        file.seek(offset + 4500 * 6)
        file.write(b"\x01")
    with pytest.raises(CacheDamagedError, match="layer net/high, rows 4096 to 4999"):
        merged(path, files)
    again = {id: id for id in ids_of(5000)[4096:]}
    merged(path, files, [write_batch(PartFolder(path), 4096, again)])
    assert_holds(path, files)


def test_windows_and_parts_of_any_size_give_the_same_bytes(path, tmp_path):
    files = {id: id for id in ids_of(9000)}
    embed(path, files, batch=9000)
    other = tmp_path / "other.h5"
    embed(other, files, batch=700)
    with h5py.File(path) as one, h5py.File(other) as two:
        for layer in LAYERS:
            assert one["layers"][layer][()].tobytes() == two["layers"][layer][()].tobytes()
            assert len(one["checksums"][layer]) == 3
        assert one["ids"][()].tolist() == two["ids"][()].tolist()
    assert_holds(other, files)


def test_a_reader_keeps_the_view_that_it_opened(path):
    embed(path, FILES)
    with EmbeddingStore.open(path) as store:
        before = store.matrix()[0]
        embed(path, {"only.jpg": "one"})
        assert len(store) == 10
        np.testing.assert_array_equal(store.matrix()[0], before)
    with EmbeddingStore.open(path) as store:
        assert store.ids == ("only.jpg",)
