"""MultiTaskTransfer: several targets behind the door, each as its own door would have it."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from photo_album import skies
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from small_world import small_backbone

from pipeline import MultiTaskTransfer, TransferClassifier, TransferModel, TransferRegressor
from pipeline.errors import InputError, OptionError, UnknownNameError

PHOTOS, KINDS = skies(10)
GREY = PHOTOS.mean(axis=(1, 2, 3))
WARM = ["warm" if kind == "dawn" else "cold" for kind in KINDS]
TARGETS = {
    "kind": [None if place % 5 == 4 else kind for place, kind in enumerate(KINDS)],
    "grey": [np.nan if place % 3 == 2 else value for place, value in enumerate(GREY)],
    "warm": WARM,
}


def door(**options):
    return MultiTaskTransfer(small_backbone(), **options)


@pytest.fixture(scope="module")
def fitted():
    return door().fit(PHOTOS, TARGETS)


def test_every_target_is_what_its_own_door_gives(fitted):
    predicted, proba = fitted.predict(PHOTOS), fitted.predict_proba(PHOTOS)
    assert list(predicted) == list(TARGETS)
    assert list(proba) == list(fitted.classes_) == ["kind", "warm"]
    for name in ("kind", "warm"):
        alone = TransferClassifier(small_backbone()).fit(PHOTOS, TARGETS[name])
        assert predicted[name].tolist() == alone.predict(PHOTOS).tolist()
        np.testing.assert_allclose(proba[name], alone.predict_proba(PHOTOS), rtol=1e-4, atol=1e-6)
        assert fitted.classes_[name].tolist() == alone.classes_.tolist()
    alone = TransferRegressor(small_backbone()).fit(PHOTOS, TARGETS["grey"])
    np.testing.assert_allclose(predicted["grey"], alone.predict(PHOTOS), rtol=1e-4)
    counts = {name: found.n_train for name, found in fitted.model_.results.items()}
    assert counts == {"kind": 24, "grey": 20, "warm": 30}


@pytest.mark.parametrize(
    "frame", [pd.DataFrame, lambda columns: pl.DataFrame(columns, strict=False)]
)
def test_a_data_frame_is_as_good_as_a_dict(fitted, frame):
    ours = door().fit(PHOTOS, frame(TARGETS)).predict(PHOTOS)
    for name, values in fitted.predict(PHOTOS).items():
        assert ours[name].tolist() == values.tolist()


def test_scores_are_those_of_scikit_learn_on_the_labelled_rows(fitted):
    predicted, found = fitted.predict(PHOTOS), fitted.score(PHOTOS, TARGETS)
    known = [place for place, kind in enumerate(TARGETS["kind"]) if kind is not None]
    right = [predicted["kind"][place] == KINDS[place] for place in known]
    measured = np.isfinite(TARGETS["grey"])
    assert found == {
        "kind": pytest.approx(np.mean(right)),
        "grey": pytest.approx(r2_score(GREY[measured], predicted["grey"][measured])),
        "warm": pytest.approx(np.mean(predicted["warm"] == np.array(WARM))),
    }
    assert list(fitted.score(PHOTOS, {"warm": WARM})) == ["warm"]


def test_kinds_may_be_given():
    targets = {"level": [0, 1, 2] * 10, "tags": [["big"], ["big", "far"], []] * 10}
    plain = door(kinds={"tags": "multilabel"}).fit(PHOTOS, targets)
    asked = door(kinds={"tags": "multilabel", "level": "number"}).fit(PHOTOS, targets)
    kinds = {name: found.kind for name, found in plain.model_.results.items()}
    assert kinds == {"level": "class", "tags": "multilabel"}
    assert asked.model_.results["level"].kind == "number"
    assert plain.classes_["tags"].tolist() == ["big", "far"]
    assert plain.predict(PHOTOS)["tags"].shape == (30, 2)
    assert list(asked.predict_proba(PHOTOS)) == ["tags"]
    score = plain.score(PHOTOS, targets)["tags"]
    assert 0 <= score <= 1


def test_it_clones_pickles_and_keeps_its_parameters(fitted):
    unfitted = door(fusion="last", kinds={"grey": "number"}, class_weight="balanced")
    parameters = unfitted.get_params(deep=False)
    own, single = set(parameters), set(TransferClassifier().get_params(deep=False))
    assert own == single | {"kinds"}
    copied = clone(unfitted)
    assert copied.get_params(deep=False) == parameters
    assert copied.kinds == {"grey": "number"}
    again = pickle.loads(pickle.dumps(fitted))
    for name, values in fitted.predict(PHOTOS).items():
        assert again.predict(PHOTOS)[name].tolist() == values.tolist()
    assert not is_classifier(fitted)
    assert not is_regressor(fitted)
    for use in (unfitted.predict, unfitted.predict_proba, lambda X: unfitted.score(X, TARGETS)):
        with pytest.raises(NotFittedError):
            use(PHOTOS)


def test_a_saved_door_is_a_model(fitted, tmp_path):
    fitted.save(tmp_path / "m.safetensors")
    model = TransferModel.load(tmp_path / "m.safetensors", backbone=small_backbone())
    for name, values in fitted.predict(PHOTOS).items():
        assert model.predict(list(PHOTOS))[name].tolist() == values.tolist()


def test_any_classifier_of_scikit_learn_is_a_head():
    targets = {"kind": TARGETS["kind"], "warm": WARM}
    both = door(head=LogisticRegression(C=0.1), fusion="concat").fit(PHOTOS, targets)
    alone = TransferClassifier(small_backbone(), head=LogisticRegression(C=0.1), fusion="concat")
    np.testing.assert_allclose(
        both.predict_proba(PHOTOS)["kind"],
        alone.fit(PHOTOS, TARGETS["kind"]).predict_proba(PHOTOS), rtol=1e-5,
    )  # fmt: skip


def test_groups_stay_together_in_every_target():
    """Photos of one group are copies of one photo: left out together, they cannot be guessed."""
    rng = np.random.default_rng(0)
    photos = np.repeat(rng.integers(0, 256, (10, 40, 44, 3), dtype=np.uint8), 3, axis=0)
    photos += rng.integers(0, 3, photos.shape, dtype=np.uint8)
    groups = np.repeat(np.arange(10), 3)
    targets = {"one": np.array(["a", "b"])[groups % 2], "two": rng.normal(size=10)[groups]}
    together = door(fusion="concat").fit(photos, targets, groups=groups).model_.results
    apart = door(fusion="concat").fit(photos, targets).model_.results
    for name, loss in (("one", "log_loss"), ("two", "mse")):
        assert together[name].fusions[0].score[loss] > 2 * apart[name].fusions[0].score[loss]


def test_a_broken_photo_is_skipped_on_demand(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    photos = [*PHOTOS, tmp_path / "broken.png"]
    targets = {name: [*values, values[0]] for name, values in TARGETS.items()}
    both = door(on_bad_input="skip").fit(photos, targets)
    assert both.model_.results["warm"].n_train == 30
    predicted = both.predict(photos)
    assert predicted["kind"][-1] is None
    assert np.isnan(predicted["grey"][-1])
    assert np.isnan(both.predict_proba(photos)["kind"][-1]).all()
    assert both.score(photos, targets)["warm"] == both.score(list(PHOTOS), TARGETS)["warm"]


def test_numbers_alone_have_no_probabilities():
    both = door(fusion="last").fit(PHOTOS, {"grey": GREY, "double": 2 * GREY})
    assert both.classes_ == {}
    with pytest.raises(OptionError) as caught:
        both.predict_proba(PHOTOS)
    assert str(caught.value).startswith("targets 'grey', 'double' are numbers, and have no prob")


@pytest.mark.parametrize(
    ("targets", "error", "sentence"),
    [
        (KINDS, InputError, "y is of the type list, but must be a dict of columns or a data frame: "
         "one column for each target. TransferClassifier and TransferRegressor take one alone."),
        (np.array(KINDS), InputError, "y is of the type ndarray, but must be a dict of columns"),
        ({}, InputError, "y has no column. Give one for each target."),
        ({"kind": KINDS, "warm": WARM[:-1]}, InputError, "target 'warm' has 29 labels, but X has "
         "30 inputs. Give one label for each input, None where there is none."),
        ({3: KINDS}, InputError, "target 3 has no text for a name. Name it, like 'species'."),
        ({"kind": KINDS, "none": [None] * 30}, InputError,
         "target 'none' has no value in any of its 30 rows."),
        ({"kind": KINDS, "same": ["yes"] * 30}, InputError, "target 'same' has only one class, "
         "'yes', in every row: there is nothing to tell apart."),
    ],
)  # fmt: skip
def test_targets_that_are_none_are_refused(targets, error, sentence):
    with pytest.raises(error) as caught:
        door().fit(PHOTOS, targets)
    assert str(caught.value).startswith(sentence)


def test_words_that_no_target_knows_are_refused(fitted):
    with pytest.raises(UnknownNameError, match=r"unknown target 'gray'\. Did you mean 'grey'"):
        door(kinds={"gray": "number"}).fit(PHOTOS, TARGETS)
    with pytest.raises(UnknownNameError, match=r"unknown target 'warmth'\. Did you mean 'warm'"):
        fitted.score(PHOTOS, {"warmth": WARM})
    with pytest.raises(InputError, match="no input has both a label of 'warm' and a readable"):
        fitted.score(PHOTOS, {"warm": [None] * 30})
    with pytest.raises(OptionError, match="target 'grey': head lda predicts classes"):
        door(head="lda").fit(PHOTOS, TARGETS)


def test_a_target_whose_only_labels_are_of_unreadable_photos_is_refused(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    photos = [*PHOTOS, tmp_path / "broken.png"]
    targets = {"warm": [*WARM, "warm"], "late": [*[None] * 30, "yes"]}
    with pytest.raises(InputError) as caught:
        door(on_bad_input="skip").fit(photos, targets)
    assert str(caught.value) == (
        "no input has both a label of 'late' and a readable picture. Label some."
    )
