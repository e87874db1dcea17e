"""ContentCache: each picture is embedded once, whatever it is called and whoever asks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_world import by_hand, ids_in, pixels, small_backbone, write_pictures

from pipeline.cache import EmbeddingStore
from pipeline.config import EmbedOptions
from pipeline.embedding import ContentCache
from pipeline.errors import BadInputError, OptionError, UnknownNameError
from pipeline.inputs import read

OPTIONS = EmbedOptions(precision="float32")


def content_cache(folder, layers="all", options=OPTIONS, seed=0):
    return ContentCache(folder, small_backbone(seed), layers, options)


@pytest.fixture
def photos(tmp_path):
    return sorted(write_pictures(tmp_path / "photos", range(8)).rglob("*.png"))


def inode(cache):
    return cache.path.stat().st_ino


def seeds(paths):
    return [int(path.stem) for path in paths]


def test_what_is_fetched_is_what_plain_hooks_give_in_the_order_asked(photos, tmp_path):
    fetched = content_cache(tmp_path / "cache").fetch(photos[::-1])
    expected = by_hand(small_backbone(), [pixels(seed) for seed in seeds(photos[::-1])])
    assert fetched.X.dtype == np.float32
    assert fetched.usable.all()
    assert fetched.digests == [read(path).digest for path in photos[::-1]]
    assert list(fetched.layer_slices) == ["small/low", "small/high", "small/top"]
    for layer, columns in fetched.layer_slices.items():
        np.testing.assert_allclose(
            fetched.X[:, columns], expected[layer.rpartition("/")[2]], rtol=3e-3, atol=2e-3
        )


def test_each_picture_is_embedded_once_over_repeated_fetches(photos, tmp_path):
    cache = content_cache(tmp_path)
    whole = cache.fetch(photos)
    before = inode(cache)
    again = content_cache(tmp_path, "high").fetch(photos[2:5])
    assert inode(cache) == before
    assert np.array_equal(again.X, whole.X[2:5, whole.layer_slices["small/high"]])
    content_cache(tmp_path).fetch([*photos[:2], pixels(40)])
    assert inode(cache) != before
    assert len(ids_in(cache.path)) == 9  # nothing is ever dropped
    assert np.array_equal(cache.fetch(photos).X, whole.X)


def test_ids_are_hex_digests_and_the_file_is_called_by_the_spec(photos, tmp_path):
    cache = content_cache(tmp_path)
    cache.fetch(photos)
    assert cache.path == tmp_path / f"{cache.spec.key()}.h5"
    assert sorted(ids_in(cache.path)) == sorted(read(path).digest.hex() for path in photos)
    with EmbeddingStore.open(cache.path, expect=cache.spec) as store:
        assert list(store.layers) == ["small/low", "small/high", "small/top"]
        assert store.targets == {}
    assert cache.weights == "module"


def test_duplicates_are_one_row_in_the_file_and_two_in_the_matrix(tmp_path):
    picture = pixels(3)
    cache = content_cache(tmp_path)
    fetched = cache.fetch([picture, pixels(4), picture.copy(), Image.fromarray(picture)])
    assert (fetched.X[[2, 3]] == fetched.X[0]).all()
    assert len(ids_in(cache.path)) == 2


def test_paths_arrays_and_pictures_mix(photos, tmp_path):
    sources = [str(photos[0]), photos[1], pixels(20), Image.fromarray(pixels(21))]
    fetched = content_cache(tmp_path).fetch(sources)
    expected = by_hand(small_backbone(), [pixels(seed) for seed in [*seeds(photos[:2]), 20, 21]])[
        "top"
    ]
    found = fetched.X[:, fetched.layer_slices["small/top"]]
    np.testing.assert_allclose(found, expected, rtol=3e-3, atol=2e-3)


def test_bad_inputs_are_all_named(photos, tmp_path):
    photos[1].write_bytes(b"")
    photos[4].write_text("not a picture")
    with pytest.raises(BadInputError, match="3 inputs cannot be embedded") as error:
        content_cache(tmp_path).fetch([*photos, tmp_path / "gone.png"])
    named = {Path(name).name for name, _ in error.value.failures}
    assert named == {photos[1].name, photos[4].name, "gone.png"}
    assert all(reason for _, reason in error.value.failures)


def test_bad_inputs_are_left_out_when_skipped(photos, tmp_path):
    sound = content_cache(tmp_path / "sound").fetch(photos)
    photos[1].write_bytes(b"")
    cache = content_cache(tmp_path)
    fetched = cache.fetch([tmp_path / "gone.png", *photos], skip=True)
    assert fetched.usable.tolist() == [False, True, False, *[True] * 6]
    assert np.array_equal(fetched.X, np.delete(sound.X, 1, axis=0))
    assert len(fetched.digests) == 7
    before = inode(cache)
    cache.fetch(photos, skip=True)  # the bad one is known to be bad
    cache.fetch([pixels(0)], skip=True)
    cache.fetch(photos, skip=True)
    assert len(EmbeddingStore.open(cache.path).failed) == 1
    assert inode(cache) != before


def test_nothing_but_bad_inputs_is_an_empty_matrix_or_an_error(tmp_path):
    (tmp_path / "bad.png").write_text("not a picture")
    for sources in ([tmp_path / "bad.png"], [tmp_path / "gone.png"]):
        cache = content_cache(tmp_path / "cache")
        fetched = cache.fetch(sources, skip=True)
        assert fetched.X.shape == (0, 13)
        assert fetched.usable.tolist() == [False]
        with pytest.raises(BadInputError, match="1 input cannot be embedded"):
            cache.fetch(sources)
        assert len(cache.fetch([pixels(0), *sources], skip=True).X) == 1


def test_a_file_that_changes_between_fetches_is_embedded_anew(photos, tmp_path):
    cache = content_cache(tmp_path)
    before = cache.fetch(photos[:1]).X
    write_pictures(photos[0].parent, {photos[0].name: 50})
    after = cache.fetch(photos[:1]).X
    assert not np.array_equal(before, after)
    assert len(ids_in(cache.path)) == 2


def test_another_spec_is_another_file(tmp_path):
    first, second = content_cache(tmp_path), content_cache(tmp_path, seed=3)
    first.fetch([pixels(0)])
    second.fetch([pixels(0)])
    assert first.path != second.path
    assert len(list(tmp_path.glob("*.h5"))) == 2


def test_layers_are_chosen_before_anything_is_embedded(tmp_path):
    assert content_cache(tmp_path, ["top", "low"]).layers == {"small/low": 4, "small/top": 3}
    with pytest.raises(UnknownNameError, match="Did you mean 'high'"):
        content_cache(tmp_path, "hihg")
    assert not list(tmp_path.iterdir())


def test_the_default_of_the_doors_says_nothing_of_a_loaded_backbone(tmp_path):
    from dataclasses import replace

    squashed = small_backbone(preprocess=replace(small_backbone().preprocess, resize="squash"))
    crop = EmbedOptions(resize="crop", pooling="auto", precision="float32")
    assert ContentCache(tmp_path, squashed, "all", crop).spec.preprocess.resize == "squash"
    with pytest.raises(OptionError, match="resize pad was asked for"):
        ContentCache(tmp_path, squashed, "all", replace(crop, resize="pad"))


def test_without_a_folder_the_file_is_temporary_and_shared_in_the_process():
    first, second = content_cache(None), content_cache(None, "top")
    assert first.path == second.path
    first.fetch([pixels(0)])
    before = inode(first)
    second.fetch([pixels(0)])
    assert inode(second) == before


def test_two_processes_at_once_lose_nothing(photos, tmp_path):
    from embedding_child import fetch_at_once, in_child

    assert in_child(fetch_at_once, photos, tmp_path / "cache") == 0
    (path,) = (tmp_path / "cache").glob("*.h5")
    assert sorted(ids_in(path)) == sorted(read(photo).digest.hex() for photo in photos)
    assert [found.name for found in (tmp_path / "cache").iterdir()] == [path.name]
