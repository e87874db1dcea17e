"""Predicting: from pictures, from a cache, and as a table."""

import csv

import numpy as np
import pytest
from PIL import Image
from small_world import pixels, small_backbone, write_pictures
from stores import model_of, names, store_of, vectors

from pipeline.cache import EmbeddingStore
from pipeline.config import EmbedOptions, TrainOptions
from pipeline.embedding import embed
from pipeline.errors import BadInputError, CacheMismatchError, InputError, OptionError
from pipeline.model import TransferModel, heldout_table, predictions_table, write_table
from pipeline.model.predictions import head_rows
from pipeline.samples import SampleSet
from pipeline.training import train

FLOAT32 = EmbedOptions(precision="float32")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve readable pictures in two classes, and a broken one."""
    folder = write_pictures(tmp_path_factory.mktemp("photos"), range(12))
    (folder / "a" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def cache(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "cache.h5"
    embed(SampleSet.from_folder(photos), small_backbone(), path, options=FLOAT32).close()
    return path


@pytest.fixture(scope="module")
def model(cache):
    with EmbeddingStore.open(cache) as store:
        trained = train(store, TrainOptions(test_fraction=0, head="ridge", fusion="concat"))
    trained.given = {"small": small_backbone()}
    return trained


@pytest.fixture
def good(photos):
    return [path for path in sorted(photos.rglob("*.png")) if path.name != "broken.png"]


def test_pictures_and_their_cache_get_the_same_answers(model, cache, good):
    with EmbeddingStore.open(cache) as store:
        assert [str(path)[-9:] for path in good] == list(store.ids)
        np.testing.assert_array_equal(model.predict(good), model.predict(store))
        np.testing.assert_array_equal(model.predict_proba(good), model.predict_proba(store))


def test_answers_stand_in_the_order_of_the_inputs_whatever_the_batch(model, good):
    proba = model.predict_proba(good)
    order = np.random.default_rng(0).permutation(len(good))
    for batch_size in (1, 5):
        turned = model.predict_proba([good[place] for place in order], batch_size=batch_size)
        np.testing.assert_array_equal(turned, proba[order])


def test_paths_pictures_arrays_sample_sets_and_a_folder_are_all_inputs(model, good, photos):
    expected = model.predict_proba(good[:2])
    opened = [Image.open(path) for path in good[:2]]
    arrays = np.stack([pixels(int(path.stem)) for path in good[:2]])
    for inputs in ([str(path) for path in good[:2]], opened, arrays, SampleSet.from_list(good[:2])):
        np.testing.assert_array_equal(model.predict_proba(inputs), expected)
    assert model.predict(good[0]).shape == (1,)
    assert model.predict(photos, on_bad_input="skip").shape == (13,)


def test_labels_come_back_in_their_dtype(model, good):
    assert model.predict(good).dtype.kind == "U"
    assert model.classes_.tolist() == ["a", "b"]
    np.testing.assert_array_equal(model.predict(good), model.classes_[
        model.predict_proba(good).argmax(axis=1)
    ])  # fmt: skip


def test_a_bad_input_is_named_or_gets_none(model, good, photos):
    bad = photos / "a" / "broken.png"
    inputs = [good[0], bad, good[1]]
    with pytest.raises(BadInputError, match=r"broken\.png"):
        model.predict(inputs)
    found = model.predict(inputs, on_bad_input="skip")
    assert found.tolist() == [model.predict(good[:1])[0], None, model.predict(good[1:2])[0]]
    proba = model.predict_proba(inputs, on_bad_input="skip")
    assert np.isnan(proba).tolist() == [[False] * 2, [True] * 2, [False] * 2]


def test_only_bad_inputs_get_none_each(model, photos):
    bad = [photos / "a" / "broken.png", photos / "no such file.png"]
    assert model.predict(bad, on_bad_input="skip").tolist() == [None, None]
    assert np.isnan(model.predict_proba(bad, on_bad_input="skip")).all()
    table = predictions_table(model, SampleSet.from_list(bad), proba=True)
    assert [row[1:] for row in table.rows] == [["", "", ""]] * 2


def test_a_cache_may_hold_more_layers_and_backbones_than_the_model_takes(photos, tmp_path):
    layers, _ = vectors(60)
    store = store_of()
    model = model_of(store, fusion="single:high")
    more = EmbeddingStore.from_arrays(
        {"other/x": np.ones((60, 3)), "net/top": np.zeros((60, 2)), **layers},
        names(60),
        specs=store.specs | {"other": EmbeddingStore.from_arrays(
            {"other/x": np.ones((60, 3))}, names(60)).specs["other"]},
    )  # fmt: skip
    np.testing.assert_array_equal(model.predict_proba(more), model.predict_proba(store))


def test_a_cache_of_another_spec_is_refused_with_both_values(model, photos, tmp_path):
    other = small_backbone(seed=1)
    store = embed(SampleSet.from_folder(photos), other, tmp_path / "other.h5", options=FLOAT32)
    ours, theirs = model.specs["small"].weights_digest, other.weights_digest
    with pytest.raises(CacheMismatchError) as caught:
        model.predict(store)
    assert str(caught.value) == (
        f"{tmp_path / 'other.h5'} holds embeddings of another spec: weights_digest is {theirs} "
        f"here and {ours} there. Give the options it was made with, or another cache file."
    )
    store.close()


def test_a_cache_without_the_backbone_or_a_layer_is_refused(model, cache):
    store = store_of()
    with pytest.raises(CacheMismatchError, match="backbone small is missing here"):
        model.predict(store)
    fewer = EmbeddingStore.from_arrays({"small/low": np.ones((2, 4))}, ["a", "b"],
                                       specs=model.specs)  # fmt: skip
    with pytest.raises(CacheMismatchError, match="layer small/high is missing here; layer small/t"):
        model.predict(fewer)


def test_a_model_of_vectors_predicts_vectors_and_says_so_to_pictures(good):
    store = store_of()
    model = model_of(store)
    fresh, codes = vectors(9, seed=5)
    new = EmbeddingStore.from_arrays(fresh, names(9), specs=model.specs)
    assert (model.predict(new) == np.array(["elk", "fox", "owl"])[codes]).all()
    with pytest.raises(OptionError) as caught:
        model.predict(good)
    assert str(caught.value) == (
        "the model was trained on vectors computed elsewhere ('net'), so it cannot read inputs. "
        "Give it such vectors: EmbeddingStore.from_arrays(..., specs=model.specs)."
    )


def test_a_number_has_no_probabilities():
    store = store_of(age=np.arange(60.0))
    model = model_of(store)
    assert model.predict(store).dtype == np.float64
    with pytest.raises(OptionError) as caught:
        model.predict_proba(store)
    assert str(caught.value) == "target 'age' is a number, and has no probabilities. Use predict."
    for options in ({"proba": True}, {"min_confidence": 0.5}):
        with pytest.raises(OptionError) as caught:
            predictions_table(model, SampleSet.from_list([]), **options)
        assert str(caught.value) == (
            "target 'age' is a number, and has no probabilities. Leave --proba and "
            "--min-confidence out."
        )


def test_a_skipped_number_is_nan(cache, good, photos):
    with EmbeddingStore.open(cache) as store:
        layers = {name: store.values(name) for name in store.layers}
        named = EmbeddingStore.from_arrays(
            layers, store.ids, {"age": np.arange(12.5, 24)}, specs=store.specs
        )
    model = train(named, TrainOptions(test_fraction=0, head="ridge", fusion="concat"))
    model.given = {"small": small_backbone()}
    found = model.predict([good[0], photos / "a" / "broken.png"], on_bad_input="skip")
    assert found.dtype == np.float64
    assert np.isnan(found).tolist() == [False, True]
    table = predictions_table(model, SampleSet.from_list([good[0], photos / "a" / "broken.png"]))
    assert float(table.rows[0][1]) == found[0]
    assert table.rows[1][1] == ""


def test_several_labels_are_0_and_1_and_a_text_of_names():
    codes = np.arange(60) % 3
    store = store_of(tags=[("|", "big", "big|cat")[code] for code in codes])
    model = train(store, TrainOptions(target_kind=("tags=multilabel",), fusion="last"))
    found, proba = model.predict(store), model.predict_proba(store)
    assert model.classes_.tolist() == ["big", "cat"]
    np.testing.assert_array_equal(found, (proba > 0.5).astype(int))
    X, _ = store.matrix(list(model.layers))
    head = model.heads["tags"]
    assert [row[0] for row in head_rows(head, "multilabel", X)] == [
        {(0, 0): "|", (1, 0): "big", (0, 1): "cat", (1, 1): "big|cat"}[tuple(row)]
        for row in found.tolist()
    ]
    least = np.maximum(proba, 1 - proba).min(axis=1)
    limit = float(np.median(least))
    rows = head_rows(head, "multilabel", X, min_confidence=limit)
    assert [row[0] == "" for row in rows] == (least < limit).tolist()


def test_several_targets_give_a_dict_and_a_row_for_each(model, good, photos):
    two = TransferModel(
        model.specs, model.layers, {"label": model.heads["label"], "again": model.heads["label"]},
        {"label": model.results["label"], "again": model.results["label"]}, given=model.given,
    )  # fmt: skip
    found = two.predict(good)
    assert list(found) == ["label", "again"]
    np.testing.assert_array_equal(found["again"], model.predict(good))
    assert set(two.predict_proba(good)) == set(two.classes_) == {"label", "again"}
    table = predictions_table(two, SampleSet.from_list(good[:2]))
    assert table.header == ["id", "target", "prediction"]
    assert [row[:2] for row in table.rows] == [
        [str(path), target] for path in good[:2] for target in ("label", "again")
    ]
    with pytest.raises(OptionError, match="--proba shows one target, but the model has several"):
        predictions_table(two, SampleSet.from_list(good), proba=True)


def test_the_table_has_a_row_for_every_input_and_failures_before_reading_at_the_end(
    model, photos, tmp_path
):
    table = photos / "list.csv"
    table.write_text("path\na/002.png\nno/such.png\na/broken.png\nb/001.png\n")
    samples = SampleSet.from_table(table)
    table.unlink()
    found = predictions_table(model, samples, proba=True)
    expected = model.predict([photos / "a/002.png", photos / "b/001.png"])
    by_id = {row[0]: row[1] for row in found.rows}
    assert found.header == ["id", "prediction", "a", "b"]
    assert [row[0] for row in found.rows] == [*samples.ids, *(name for name, _ in samples.failed)]
    assert by_id == {
        "a/002.png": expected[0], "b/001.png": expected[1], "a/broken.png": "", "no/such.png": "",
    }  # fmt: skip
    assert set(found.failed) == {"a/broken.png", "no/such.png"}
    assert all(len(row) == 4 for row in found.rows)
    with pytest.raises(BadInputError, match="2 inputs cannot be embedded"):
        predictions_table(model, samples, on_bad_input="fail")


def test_an_answer_under_the_confidence_asked_for_is_left_empty(model, good):
    proba = model.predict_proba(good)
    limit = float(np.sort(proba.max(axis=1))[5])
    found = predictions_table(model, SampleSet.from_list(good), min_confidence=limit, proba=True)
    assert [row[1] == "" for row in found.rows] == (proba.max(axis=1) < limit).tolist()
    np.testing.assert_allclose([[float(cell) for cell in row[2:]] for row in found.rows], proba,
                               rtol=1e-5)  # fmt: skip


def test_ids_and_labels_of_any_kind_come_back_from_csv(tmp_path):
    layers, codes = vectors(60)
    labels = np.array(["a,b", 'say "hi"', "zwei\nzeilen 猫"])
    ids = [f'foto {row}, "größe"\n😀.jpg' for row in range(60)]
    store = EmbeddingStore.from_arrays(layers, ids, {"label": labels[codes]})
    model = model_of(store)
    header, rows = heldout_table(model, store)
    path = tmp_path / "predictions.csv"
    write_table(path, header, rows)
    with path.open(newline="", encoding="utf-8") as file:
        read = list(csv.reader(file))
    assert read == [header, *rows]
    assert read[0] == ["id", "label", "prediction", *sorted(labels)]
    held = model.split.rows(ids, "test")
    assert [row[0] for row in read[1:]] == [ids[row] for row in held]
    assert [row[1] for row in read[1:]] == labels[codes][held].tolist()
    assert [row[2] for row in read[1:]] == model.predict(store)[held].tolist()


def test_numbers_are_written_so_that_they_come_back_as_they_were():
    ages = np.array([123456789012.0, 0.1, 1 / 3, -2e-7, 5.0, 1e20] * 10)
    store = store_of(age=ages)
    model = model_of(store, fusion="last")
    header, rows = heldout_table(model, store)
    held = model.split.rows(store.ids, "test")
    assert header == ["id", "label", "prediction"]
    assert [float(row[1]) for row in rows] == ages[held].tolist()
    assert [float(row[2]) for row in rows] == model.predict(store)[held].tolist()
    assert {row[1] for row in rows} <= {
        "123456789012", "0.1", "0.3333333333333333", "-2e-07", "5", "1e+20",
    }  # fmt: skip


def test_a_model_that_was_refitted_has_no_held_out_rows():
    store = store_of()
    assert heldout_table(model_of(store, refit=True), store)[1] == []


def test_a_table_that_cannot_be_written_says_why(tmp_path):
    with pytest.raises(InputError) as caught:
        write_table(tmp_path / "no" / "p.csv", ["id"], [])
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'no' / 'p.csv'}: No such file or directory. Give a path in a "
        "folder that exists and can be written."
    )


def test_a_precision_or_decoder_that_is_not_here_is_replaced_and_said(model, good, caplog):
    import dataclasses

    here = model.specs["small"]
    odd = dataclasses.replace(here, precision="float16", decoder="newer")
    other = dataclasses.replace(model, specs={"small": odd})
    other.given = {"small": small_backbone()}
    with caplog.at_level("WARNING"):
        np.testing.assert_array_equal(
            other.predict_proba(good, device="cpu"), model.predict_proba(good, device="cpu")
        )
    said = [record.getMessage() for record in caplog.records]
    assert "float16 is not available on cpu: float32 serves" in said
    assert "decoder newer is not available: torchcodec serves" in said


def test_a_model_is_shown_in_a_few_lines(model):
    assert "low" in repr(model)
    assert "001.png" not in repr(model)
