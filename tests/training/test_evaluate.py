"""evaluate(): a model on rows that it was not trained on."""

import numpy as np
import pytest
from sklearn import metrics
from small_world import small_backbone, write_pictures
from stores import LAYERS, model_of, names, store_of, vectors

from pipeline.cache import EmbeddingStore
from pipeline.config import EmbedOptions, TrainOptions
from pipeline.embedding import embed
from pipeline.errors import InputError
from pipeline.model import TransferModel
from pipeline.samples import SampleSet
from pipeline.training import evaluate, train

LABELS = np.array(["elk", "fox", "owl"])


def fresh(n: int = 30, seed: int = 9, specs=None, **targets):
    """Vectors that the model of `stores` has not seen."""
    layers, codes = vectors(n, seed)
    given = targets or {"label": LABELS[codes]}
    return EmbeddingStore.from_arrays(layers, names(n), given, specs=specs)


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_the_models_own_cache_gives_the_figures_of_training(fraction):
    store = store_of(90)
    model = model_of(store, test_fraction=fraction)
    found = evaluate(model, store)
    assert found.results["label"].figures == model.results["label"].figures
    assert found.results["label"].n_test == model.results["label"].n_test
    assert found.left_out == 90 - model.results["label"].n_test
    assert found.failed == {}


def test_the_figures_are_the_same_after_the_file(tmp_path):
    store = store_of(90)
    model = model_of(store)
    model.save(tmp_path / "model")
    found = evaluate(TransferModel.load(tmp_path / "model"), store)
    assert found.results["label"].figures == model.results["label"].figures


def test_rows_that_were_trained_on_are_measured_when_asked_for():
    store = store_of(90)
    model = model_of(store)
    found = evaluate(model, store, include_training=True)
    truth = store.targets["label"].values.astype(str)
    assert (found.results["label"].n_test, found.left_out) == (90, 0)
    assert found.results["label"].figures["accuracy"] == pytest.approx(
        metrics.accuracy_score(truth, model.predict(store))
    )


def test_content_counts_not_names():
    """A copy of a training row under another name is left out."""
    store = store_of()
    model = model_of(store)
    kept = int(model.split.rows(store.ids, "train")[0])
    layers, codes = vectors(30, 9)
    mixed = EmbeddingStore.from_arrays(
        {name: np.vstack([values, store.values(name, [kept])]) for name, values in layers.items()},
        [*names(30), "another name.jpg"],
        {"label": [*LABELS[codes], "owl"]},
        specs=store.specs,
    )
    found = evaluate(model, mixed)
    assert (found.left_out, found.results["label"].n_test) == (1, 30)


def test_other_rows_are_measured_with_all_that_was_known_of_the_head():
    model = model_of(store_of())
    new = fresh(specs=model.specs)
    found = evaluate(model, new).results["label"]
    truth = new.targets["label"].values.astype(str)
    proba = model.predict_proba(new)
    assert found.figures["log_loss"] == pytest.approx(metrics.log_loss(truth, proba))
    assert (found.n_test, found.n_train, found.head) == (30, 48, "ridge")


def test_labels_that_were_never_trained_on_count_as_wrong():
    model = model_of(store_of())
    _, codes = vectors(30, 9)
    labels = LABELS[codes].astype(object)
    labels[:6] = "yak"
    found = evaluate(model, fresh(specs=model.specs, label=labels)).results["label"]
    right = model.predict(fresh(specs=model.specs)) == labels
    assert not right[:6].any()
    assert found.figures["accuracy"] == pytest.approx(right.mean())
    assert found.figures["log_loss"] > 6


def test_labels_are_compared_as_texts():
    """A model of whole numbers is measured on a table, whose cells are texts, and back."""
    _, codes = vectors(30, 9)
    model = model_of(store_of(label=np.arange(60) % 3))
    assert model.classes_.tolist() == [0, 1, 2]
    numbers = evaluate(model, fresh(specs=model.specs, label=codes)).results["label"]
    texts = evaluate(model, fresh(specs=model.specs, label=codes.astype(str))).results["label"]
    assert numbers.figures == texts.figures
    assert texts.figures["accuracy"] > 0.8
    turned = model_of(store_of(label=(np.arange(60) % 3).astype(str)))
    assert evaluate(turned, fresh(specs=turned.specs, label=codes)).results["label"].figures[
        "accuracy"
    ] == pytest.approx(texts.figures["accuracy"])


def test_several_labels_are_aligned_by_name():
    """The other source lacks one label and has a new one."""
    model = train(store_of(tags=[("|", "big", "big|cat")[row % 3] for row in range(60)]),
                  TrainOptions(target_kind=("tags=multilabel",), fusion="last"))  # fmt: skip
    new = fresh(specs=model.specs, tags=[("|", "cat", "ant|cat")[row % 3] for row in range(30)])
    found = evaluate(model, new).results["tags"]
    predicted = model.predict(new)
    rows = np.arange(30) % 3
    truth = np.stack([np.zeros(30), rows > 0, rows == 2], axis=1).astype(int)  # big, cat, ant
    chosen = np.hstack([predicted, np.zeros((30, 1), int)])
    for name in ("macro", "micro"):
        assert found.figures[f"{name}_f1"] == pytest.approx(
            metrics.f1_score(truth, chosen, average=name, zero_division=0.0)
        )


def test_a_number_is_measured_and_missing_values_are_left_alone():
    layers, _ = vectors(60)
    ages = 3 * layers["net/high"][:, 0] + 40
    model = model_of(EmbeddingStore.from_arrays(layers, names(60), {"age": ages}))
    other, _ = vectors(30, 9)
    truth = 3 * other["net/high"][:, 0].astype(float) + 40
    truth[::3] = np.nan
    new = fresh(specs=model.specs, age=truth)
    found = evaluate(model, new).results["age"]
    known = ~np.isnan(truth)
    assert found.n_test == 20
    assert found.figures["r2"] == pytest.approx(
        metrics.r2_score(truth[known], model.predict(new)[known])
    )


def test_rows_without_a_label_leave_the_figures_open():
    model = model_of(store_of())
    found = evaluate(model, fresh(specs=model.specs, label=[None] * 30)).results["label"]
    assert found.n_test == 0
    assert set(found.figures.values()) == {None}


def test_a_model_that_knows_no_split_measures_every_row():
    store = store_of()
    model = model_of(store)
    model.split = None
    assert evaluate(model, store).results["label"].n_test == 60


def test_nothing_but_training_rows_is_refused():
    store = store_of()
    with pytest.raises(InputError) as caught:
        evaluate(model_of(store, refit=True), store)
    assert str(caught.value) == (
        "every row of this source was trained on: there is nothing to measure on. Give other "
        "inputs, or --include-training to see the figures of the training rows."
    )


def test_a_source_without_the_labels_is_refused():
    model = model_of(store_of())
    for columns, has in (({"lable": ["elk", "owl"] * 15}, "'lable'"), ({}, "no column at all")):
        layers, _ = vectors(30, 9)
        new = EmbeddingStore.from_arrays(layers, names(30), columns, specs=model.specs)
        with pytest.raises(InputError) as caught:
            evaluate(model, new)
        assert str(caught.value) == (
            f"the source has no labels for the target 'label': it has {has}. Put the images into "
            "class folders, or give a table with the columns 'path' and 'label'."
        )


@pytest.fixture
def photos(tmp_path):
    return write_pictures(tmp_path / "photos", range(12))


@pytest.fixture
def model(photos, tmp_path):
    store = embed(SampleSet.from_folder(photos), small_backbone(), tmp_path / "cache.h5",
                  options=EmbedOptions(precision="float32"))  # fmt: skip
    trained = train(store, TrainOptions(head="ridge", fusion="concat"))
    trained.given = {"small": small_backbone()}
    return trained


def test_a_folder_of_pictures_is_measured_and_its_failures_are_told(model, photos, tmp_path):
    assert set(LAYERS) - set(model.layers)
    found = evaluate(model, photos)
    assert found.results["label"].figures == model.results["label"].figures
    new = write_pictures(tmp_path / "new", range(20, 26))
    (new / "a" / "broken.png").write_bytes(b"none")
    found = evaluate(model, str(new))
    assert found.results["label"].n_test == 6
    assert list(found.failed) == ["a/broken.png"]
    truth = [path.parent.name for path in sorted(new.rglob("*.png")) if path.name != "broken.png"]
    chosen = model.predict(new, on_bad_input="skip")
    assert found.results["label"].figures["accuracy"] == pytest.approx(
        np.mean([a == b for a, b in zip(truth, [c for c in chosen if c is not None], strict=True)])
    )


def test_nothing_but_broken_pictures_is_refused(model, tmp_path):
    for label in "ab":
        (tmp_path / "bad" / label).mkdir(parents=True)
        (tmp_path / "bad" / label / "1.png").write_bytes(b"none")
    with pytest.raises(InputError) as caught:
        evaluate(model, tmp_path / "bad")
    assert str(caught.value).startswith(
        "none of the 2 inputs could be read: there is nothing to measure on. The first is a/1.png: "
    )
