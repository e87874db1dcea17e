"""A store reads any layers and rows as one matrix, and never gives a damaged row."""

import dataclasses
import subprocess
import sys

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
    labels_of,
    vectors,
    write_batch,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cache import Column, EmbeddingStore, PartFolder
from pipeline.errors import (
    CacheDamagedError,
    CacheError,
    CacheMismatchError,
    OptionError,
    UnknownNameError,
)

N = 10_000


@pytest.fixture(scope="module")
def arrays():
    generator = np.random.default_rng(0)
    return {
        "net/low": generator.normal(size=(N, 5)).astype(np.float16),
        "net/high": generator.normal(size=(N, 3)).astype(np.float16),
        "timm/vit/high": generator.normal(size=(N, 2)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def path(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "cache.h5"
    EmbeddingStore.from_arrays(arrays, ids_of(N), labels_of(N), path).close()
    return path


@pytest.fixture(params=["disk", "memory"])
def store(request, path, arrays):
    if request.param == "disk":
        with EmbeddingStore.open(path) as opened:
            yield opened
    else:
        yield EmbeddingStore.from_arrays(arrays, ids_of(N), labels_of(N))


def test_the_matrix_is_the_layers_side_by_side(store, arrays):
    X, slices = store.matrix()
    oracle = np.concatenate([array.astype(np.float32) for array in arrays.values()], axis=1)
    np.testing.assert_array_equal(X, oracle, strict=True)
    assert X.flags.c_contiguous
    assert slices == {
        "net/low": slice(0, 5),
        "net/high": slice(5, 8),
        "timm/vit/high": slice(8, 10),
    }


@pytest.mark.parametrize(
    "rows",
    [
        None,
        slice(4000, 4200),
        slice(None, None, -3),
        [5, 5, 9999, 0, -1],
        [],
        np.arange(N) % 7 == 0,
        np.zeros(N, bool),
        np.array([4095, 4096], dtype=np.uint16),
    ],
    ids=["all", "slice", "backwards", "list", "empty", "mask", "empty mask", "array"],
)
def test_rows_are_chosen_as_numpy_chooses_them(store, arrays, rows):
    X, slices = store.matrix(["timm/vit/high", "low"], rows)
    chosen = (
        slice(None)
        if rows is None
        else np.array(rows, dtype=int)
        if isinstance(rows, list)
        else rows
    )
    oracle = np.concatenate([arrays["timm/vit/high"], arrays["net/low"]], axis=1)[chosen]
    np.testing.assert_array_equal(X, oracle)
    assert list(slices) == ["timm/vit/high", "net/low"]


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.integers(-N, N - 1), max_size=8))
def test_any_list_of_rows_is_read_in_its_order(path, arrays, rows):
    with EmbeddingStore.open(path) as store:
        X, _ = store.matrix("low", rows)
    np.testing.assert_array_equal(X, arrays["net/low"][np.array(rows, dtype=int)])


@pytest.mark.parametrize("size", [1000, 4096, 9999, 20_000])
def test_chunks_put_together_are_the_matrix(store, size):
    pieces = list(store.chunks(["net/high", "low"], size))
    assert [rows.start for rows, _ in pieces] == list(range(0, N, size))
    joined = np.concatenate([X for _, X in pieces])
    np.testing.assert_array_equal(joined, store.matrix(["net/high", "low"])[0])


def test_what_a_matrix_holds_stays_when_the_store_is_closed(path):
    store = EmbeddingStore.open(path)
    X, _ = store.matrix()
    copy = X.copy()
    store.close()
    np.testing.assert_array_equal(X, copy)
    with pytest.raises(CacheError, match=r"cache\.h5 is closed. Open it again"):
        store.matrix()


def test_an_unknown_layer_is_named_with_its_neighbour(store):
    with pytest.raises(UnknownNameError, match=r"unknown layer 'net/hihg'.*mean 'net/high'"):
        store.matrix(["net/hihg"])


def test_a_tap_of_two_backbones_must_be_named_in_full(store):
    with pytest.raises(OptionError, match=r"in full: net/high or timm/vit/high"):
        store.matrix(["high"])


def test_a_layer_is_named_once(store):
    with pytest.raises(OptionError, match="named twice: net/low, net/low"):
        store.matrix(["low", "net/low"])


def test_a_row_that_is_not_there_is_an_index_error(store):
    with pytest.raises(IndexError):
        store.matrix(rows=[N])


@pytest.mark.parametrize("layer", ["net/low", "timm/vit/high"])
def test_a_flipped_bit_in_a_row_is_found_by_whoever_reads_its_block(layer, path, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy) as file:
        dataset = file["layers"][layer]
        place = dataset.id.get_offset() + 5000 * dataset.shape[1] * dataset.dtype.itemsize
    with copy.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 4]))
    with EmbeddingStore.open(copy) as store:
        sentence = rf"copy\.h5 is damaged in layer {layer}, rows 4096 to 8191: .* embed these rows"
        for _ in range(2):
            with pytest.raises(CacheDamagedError, match=sentence):
                store.matrix(rows=[4500])
        with pytest.raises(CacheDamagedError, match=sentence):
            list(store.chunks())
        assert store.matrix(rows=[4095, 8192])[0].shape == (2, 10)
        others = [other for other in store.layers if other != layer]
        assert store.matrix(others)[0].shape[0] == N
        assert store.damaged() == {layer: [range(4096, 8192)]}


def test_opening_with_the_same_spec_is_silent_and_with_another_names_the_fields(tmp_path):
    path = tmp_path / "cache.h5"
    embed(path, {"a": "A"})
    spec = SPECS["net"]
    EmbeddingStore.open(path, expect=spec).close()
    EmbeddingStore.open(path, expect=[spec]).close()
    other = dataclasses.replace(spec, precision="bfloat16", weights_digest="ff" * 16)
    with pytest.raises(CacheMismatchError) as raised:
        EmbeddingStore.open(path, expect=other)
    assert raised.value.differences == (
        f"weights_digest is {spec.weights_digest} here and {other.weights_digest} there",
        "precision is float32 here and bfloat16 there",
    )
    with pytest.raises(CacheMismatchError, match="no backbone timm/vit, only net"):
        EmbeddingStore.open(path, expect=[spec, *VIT.values()])


def test_a_cache_that_is_not_there_is_said_with_the_way_to_make_it(tmp_path):
    with pytest.raises(CacheError, match=r"no cache .*cache\.h5\. Make it with: pipeline embed"):
        EmbeddingStore.open(tmp_path / "cache.h5")
    with pytest.raises(CacheError, match="cannot open"):
        EmbeddingStore.open(tmp_path)


def test_what_is_not_finished_is_never_mistaken_for_finished(tmp_path):
    path = tmp_path / "cache.h5"
    write_batch(PartFolder(path), 0, {"a": "A"})
    with pytest.raises(CacheError, match=r"not finished: 1 parts .* continues there"):
        EmbeddingStore.open(path)
    embed(path, {"a": "A"})
    with EmbeddingStore.open(path) as store:
        assert store.complete
        write_batch(PartFolder(path), 0, {"b": "B"})
        assert not store.complete


def test_names_of_any_alphabet_survive(tmp_path):
    path = tmp_path / "ü 猫.h5"
    ids = ["zoë/猫.jpg", "a b\tc\n.jpg", "not utf-8 \udcff.jpg", "😀"]
    names = ["a/b", ".", "..", "größe %", "plain", "\udcff"]
    targets = {name: Column.of("class", [name, None, "x|y", "\udcff"]) for name in names}
    EmbeddingStore.from_arrays({"a/b": np.eye(4)}, ids, targets, path).close()
    with EmbeddingStore.open(path) as store:
        assert list(store.ids) == ids
        assert list(store.targets) == names
        for name in names:
            assert store.targets[name].values.tolist() == [name, "", "x|y", "\udcff"]


def test_a_nul_character_is_refused_with_the_reason():
    with pytest.raises(CacheError, match="holds a NUL character"):
        EmbeddingStore.from_arrays({"a/b": np.eye(1)}, ["a\0b"], path="/tmp/never.h5")


def test_arrays_keep_float16_and_turn_everything_else_into_float32():
    layers = {"a/x": np.ones((2, 1), np.float16), "b/x": np.ones((2, 1)), "c/x": [[1], [2]]}
    store = EmbeddingStore.from_arrays(layers, ["r", "s"])
    types = {layer: store.values(layer).dtype.name for layer in store.layers}
    assert types == {"a/x": "float16", "b/x": "float32", "c/x": "float32"}


def test_arrays_of_two_origins_never_pass_for_each_other():
    one = EmbeddingStore.from_arrays({"a/x": np.eye(2)}, ["r", "s"])
    two = EmbeddingStore.from_arrays({"a/x": -np.eye(2)}, ["r", "s"])
    assert one.specs["a"].difference(two.specs["a"])
    assert one.specs["a"].key() == EmbeddingStore.from_arrays(
        {"a/x": np.eye(2)}, ["t", "u"]
    ).specs["a"].key()  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "ids", "error", "sentence"),
    [
        ({"clip": np.eye(2)}, "ab", OptionError, "'clip' is no name of a layer: .* BACKBONE/TAP"),
        ({"a/x": np.eye(2)}, "aa", CacheError, "the id 'a' stands twice"),
        ({"a/x": np.eye(2)}, "abc", CacheError, "has 2 rows for 3 ids"),
        ({"a/x": np.ones(2)}, "ab", CacheError, r"shape \(2,\), but must be .*one vector a row"),
        ({"a/x": [[1.0], [np.inf]]}, "ab", CacheError, "layer a/x of 'b' has a value"),
    ],
)
def test_arrays_that_make_no_store_are_refused_with_the_reason(layers, ids, error, sentence):
    with pytest.raises(error, match=sentence):
        EmbeddingStore.from_arrays(layers, list(ids))


def test_targets_must_have_a_value_for_each_row_and_a_name():
    with pytest.raises(CacheError, match="target 'label' has 1 values for 2 rows"):
        EmbeddingStore.from_arrays({"a/x": np.eye(2)}, ["a", "b"], {"label": ["x"]})
    with pytest.raises(CacheError, match="Give its column a header"):
        EmbeddingStore.from_arrays({"a/x": np.eye(2)}, ["a", "b"], {"": ["x", "y"]})
    with pytest.raises(OptionError, match="must be one of 'class'"):
        Column.of("klass", [])


@pytest.fixture(params=["disk", "memory"])
def growing(request, tmp_path):
    layers = {"net/low": np.arange(10, dtype=np.float16).reshape(5, 2)}
    place = tmp_path / "cache.h5" if request.param == "disk" else None
    store = EmbeddingStore.from_arrays(layers, list("abcde"), {"label": list("xyxyx")}, place)
    yield store
    store.close()


def test_appended_rows_stand_below_the_others(growing):
    growing.append({"net/low": [[7, 8]]}, ["f"], {"label": ["z"], "age": [3]})
    assert growing.ids == tuple("abcdef")
    np.testing.assert_array_equal(
        growing.matrix()[0], [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [7, 8]]
    )
    assert growing.targets["label"].values.tolist() == list("xyxyxz")
    np.testing.assert_array_equal(growing.targets["age"].values, [np.nan] * 5 + [3])
    assert growing.values("low").dtype == np.float16
    assert len(growing.inputs) == 6


def test_appended_layers_stand_above_the_others(growing):
    growing.append({"net/high": np.ones((5, 1)), "other/x": np.zeros((5, 1))}, list("abcde"))
    assert growing.layers == {"net/low": 2, "net/high": 1, "other/x": 1}
    assert growing.values("net/high").dtype == np.float16
    assert growing.values("other/x").dtype == np.float32
    np.testing.assert_array_equal(growing.matrix(rows=[1])[0], [[2, 3, 1, 0]])


@pytest.mark.parametrize(
    ("layers", "ids", "sentence"),
    [
        ({"net/high": [[1]]}, ["f"], "append takes new rows with all layers"),
        ({"net/low": [[1, 2]]}, ["a"], "the id 'a' stands twice"),
        ({"net/low": [[1, 2, 3]]}, ["f"], "has 3 values a row; the store has 2"),
        ({"net/low": [[1, 70000]]}, ["f"], "'f' has a value that float16 cannot hold"),
    ],
)
def test_what_cannot_be_appended_is_refused_and_changes_nothing(growing, layers, ids, sentence):
    with pytest.raises(CacheError, match=sentence):
        growing.append(layers, ids)
    assert growing.ids == tuple("abcde")
    assert growing.matrix()[0].sum() == 45


def test_rows_are_appended_across_the_borders_of_windows(tmp_path):
    generator = np.random.default_rng(1)
    first, second = generator.normal(size=(5000, 2)), generator.normal(size=(6000, 2))
    ids = ids_of(11_000)
    with EmbeddingStore.from_arrays(
        {"net/x": first}, ids[:5000], path=tmp_path / "cache.h5"
    ) as store:
        store.append({"net/x": second}, ids[5000:])
        oracle = np.concatenate([first, second]).astype(np.float32)
        np.testing.assert_array_equal(store.matrix()[0], oracle)


def test_a_store_says_what_it_is(store):
    assert repr(store).endswith("10000 rows, 3 layers>")
    assert len(store) == N
    assert store.library_versions["numpy"] == np.__version__
    assert store.created.endswith("+00:00")


def test_reading_takes_no_lock(path):
    with EmbeddingStore.open(path) as one, EmbeddingStore.open(path) as two:
        np.testing.assert_array_equal(one.matrix()[0], two.matrix()[0])
    assert not path.with_name("cache.h5.lock").exists()


def test_the_wing_loads_without_hdf5_and_without_torch():
    code = "import sys, pipeline.cache; print(sorted({'h5py', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_merged_cache_and_one_of_arrays_read_alike(tmp_path):
    files = {id: id for id in ids_of(6)}
    embed(tmp_path / "merged.h5", files)
    arrays = {layer: vectors(list(files), layer, width) for layer, width in LAYERS.items()}
    EmbeddingStore.from_arrays(arrays, list(files), path=tmp_path / "arrays.h5", specs=SPECS)
    assert_holds(tmp_path / "merged.h5", files)
    assert_holds(tmp_path / "arrays.h5", files)
