"""The scikit-learn door, held to scikit-learn's own habits."""

import copy
import pickle
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from photo_album import skies, write_album
from PIL import Image
from sklearn import config_context
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from small_world import PREPROCESS, WIDTHS, SmallNet, small_backbone
from torch import nn

from pipeline import LayerEmbedder, TransferClassifier, TransferModel, TransferRegressor
from pipeline.backbones import Backbone, load_backbone
from pipeline.backbones.engines.torch_engine import TorchEngine
from pipeline.backbones.own import own_network
from pipeline.errors import BadInputError, InputError, OptionError, UnknownNameError
from pipeline.fusion import ConcatFusion

PHOTOS, KINDS = skies(8)
BRIGHTNESS = PHOTOS.mean(axis=(1, 2, 3))
WIDTH = sum(WIDTHS.values())
DOORS = [LayerEmbedder, TransferClassifier, TransferRegressor]


def door(kind=TransferClassifier, **options):
    if kind is not LayerEmbedder:
        options = {"head": "ridge"} | options
    return kind(small_backbone(), **options)


def labels_for(kind):
    return BRIGHTNESS if kind is TransferRegressor else KINDS


class CountingNet(SmallNet):
    """Counts the pictures that it has seen."""

    seen = 0

    def forward(self, x):
        CountingNet.seen += len(x)
        return super().forward(x)


class CountingBackbone(Backbone):
    """Runs in torch as it stands, so that every forward pass is counted."""

    def engine(self, layers="all", **_):
        return TorchEngine(self.network, [self.layers[tap] for tap in layers], "cpu", "float32")


@pytest.fixture
def counting():
    backbone = CountingBackbone("counting", own_network(CountingNet(), list(WIDTHS), PREPROCESS))
    CountingNet.seen = 0
    return backbone


def rows_in(folder):
    (cache,) = Path(folder).glob("*.h5")
    with h5py.File(cache) as file:
        return len(file["ids"])


# ---------------------------------------------------------------- scikit-learn's grammar


@pytest.mark.parametrize("kind", DOORS)
def test_parameters_are_stored_as_given_and_cloned(kind):
    layers = ["top"]
    given = door(kind, layers=layers, cache_dir="somewhere", batch_size=4)
    assert given.layers is layers
    assert given.backbone is small_backbone()
    copied = clone(given)
    assert copied.get_params().keys() == given.get_params().keys()
    assert copied.cache_dir == "somewhere"
    assert copied.backbone.weights_digest == given.backbone.weights_digest
    assert copied.set_params(layers="all").layers == "all"
    assert given.layers is layers


@pytest.mark.parametrize("kind", DOORS)
def test_fit_changes_no_parameter_and_can_be_repeated(kind):
    fitted = door(kind)
    before = dict(fitted.get_params(deep=False))
    assert fitted.fit(PHOTOS, labels_for(kind)) is fitted
    assert fitted.get_params(deep=False) == before
    use = fitted.transform if kind is LayerEmbedder else fitted.predict
    first = use(PHOTOS)
    fitted.fit(PHOTOS, labels_for(kind))
    np.testing.assert_array_equal(use(PHOTOS), first)


@pytest.mark.parametrize("kind", DOORS)
def test_pickles_unfitted_and_fitted(kind):
    unfitted = pickle.loads(pickle.dumps(door(kind)))
    fitted = unfitted.fit(PHOTOS, labels_for(kind))
    again = pickle.loads(pickle.dumps(fitted))
    use = "transform" if kind is LayerEmbedder else "predict"
    np.testing.assert_array_equal(getattr(again, use)(PHOTOS), getattr(fitted, use)(PHOTOS))


@pytest.mark.parametrize("kind", DOORS)
def test_what_is_not_fitted_says_so(kind, tmp_path):
    if kind is LayerEmbedder:
        with pytest.raises(NotFittedError):
            door(kind).transform(PHOTOS)
        with pytest.raises(NotFittedError):
            door(kind).get_feature_names_out()
        return
    for use in (lambda d: d.predict(PHOTOS), lambda d: d.save(tmp_path / "m")):
        with pytest.raises(NotFittedError):
            use(door(kind))
    assert not hasattr(door(kind), "classes_")


def test_a_door_has_no_n_features_in():
    assert not hasattr(door().fit(PHOTOS, KINDS), "n_features_in_")


def test_scikit_learn_knows_what_they_are():
    assert is_classifier(door())
    assert is_regressor(door(TransferRegressor))
    for kind in DOORS:
        tags = door(kind).__sklearn_tags__().input_tags
        assert (tags.string, tags.one_d_array, tags.three_d_array) == (True, True, True)
        assert not tags.two_d_array


def test_clones_share_the_network_and_pickles_bring_it():
    backbone = small_backbone()
    assert copy.deepcopy(backbone) is backbone
    assert clone(door()).backbone is backbone
    again = pickle.loads(pickle.dumps(backbone))
    assert again is not backbone
    assert again.weights_digest == backbone.weights_digest


def test_the_diagram_is_drawn():
    assert "TransferClassifier" in door()._repr_html_()


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    "labels",
    [
        np.array(KINDS),
        np.array(KINDS) == "noon",
        np.unique(KINDS, return_inverse=True)[1] * 10,
        np.array(KINDS, dtype=object),
        pd.Series(KINDS, index=range(100, 124)),
        list(KINDS),
    ],
    ids=["text", "bool", "int", "object", "series", "list"],
)
def test_labels_come_back_as_they_were_given(labels):
    fitted = door().fit(PHOTOS, labels)
    given = np.asarray(labels)
    predicted = fitted.predict(PHOTOS)
    assert predicted.dtype.kind == ("U" if given.dtype.kind == "O" else given.dtype.kind)
    assert predicted.tolist() == given.tolist()
    assert fitted.classes_.tolist() == sorted(set(given.tolist()))
    assert fitted.score(PHOTOS, labels) == 1.0


def test_a_column_vector_is_taken_with_the_warning_of_scikit_learn():
    column = np.array(KINDS)[:, None]
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        fitted = door().fit(PHOTOS, column)
    assert fitted.predict(PHOTOS[:1]).tolist() == ["dawn"]


@pytest.mark.parametrize("labels", [KINDS[:-1], np.zeros((24, 2))])
def test_labels_of_another_shape_are_refused(labels):
    with pytest.raises(InputError, match=r"y has the shape .* but X has 24 inputs"):
        door().fit(PHOTOS, labels)


def test_one_class_is_nothing_to_tell_apart():
    with pytest.raises(InputError, match="only one class, 'dawn'"):
        door().fit(PHOTOS, ["dawn"] * 24)
    with pytest.raises(InputError, match="there is nothing to learn"):
        door(TransferRegressor).fit(PHOTOS, np.ones(24))


@pytest.mark.parametrize("missing", [None, np.nan])
def test_rows_without_a_label_are_left_out(missing):
    labels = np.array(KINDS, dtype=object)
    labels[[0, 9, 20]] = missing
    present = [row for row in range(24) if row not in (0, 9, 20)]
    partly = door(random_state=3).fit(PHOTOS, labels)
    without = door(random_state=3).fit(PHOTOS[present], np.array(KINDS)[present])
    assert partly.model_.results["label"].n_train == 21
    np.testing.assert_array_equal(partly.predict_proba(PHOTOS), without.predict_proba(PHOTOS))


def test_missing_numbers_are_left_out():
    numbers = BRIGHTNESS.copy()
    numbers[[3, 4]] = np.nan
    assert door(TransferRegressor).fit(PHOTOS, numbers).model_.results["label"].n_train == 22


def test_without_any_label_there_is_nothing_to_fit():
    with pytest.raises(InputError, match="no input has both a label and a readable picture"):
        door().fit(PHOTOS, [None] * 24)


def test_probabilities_stand_in_the_order_of_the_classes():
    fitted = door().fit(PHOTOS, KINDS)
    proba = fitted.predict_proba(PHOTOS)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    assert fitted.classes_[proba.argmax(axis=1)].tolist() == KINDS


# ---------------------------------------------------------------- inputs


def test_every_form_of_the_same_photos_gives_the_same_numbers(tmp_path):
    write_album(tmp_path / "album")
    paths = [tmp_path / "album" / kind / f"{n % 8}.png" for n, kind in enumerate(KINDS)]
    embedder = door(LayerEmbedder, cache_dir=tmp_path / "cache").fit(PHOTOS)
    expected = embedder.transform(PHOTOS)
    assert expected.shape == (24, WIDTH)
    assert expected.dtype == np.float32
    forms = {
        "Path": paths,
        "str": [str(path) for path in paths],
        "array of str": np.array([str(path) for path in paths]),
        "Series": pd.Series([str(path) for path in paths], index=range(24, 0, -1)),
        "PIL": [Image.fromarray(photo) for photo in PHOTOS],
        "list of arrays": list(PHOTOS),
    }
    for name, form in forms.items():
        np.testing.assert_array_equal(embedder.transform(form), expected, err_msg=name)


def test_grey_photos_equal_their_three_equal_channels():
    grey = PHOTOS[..., 0]
    coloured = np.repeat(grey[..., None], 3, axis=-1)
    embedder = door(LayerEmbedder).fit(grey)
    np.testing.assert_array_equal(embedder.transform(grey), embedder.transform(coloured))


def test_one_path_is_no_list_of_letters():
    with pytest.raises(InputError, match=r"X is one path, 'photo\.png'\. Give a list"):
        door(LayerEmbedder).fit([]).transform("photo.png")


def test_nothing_to_embed_is_said():
    with pytest.raises(InputError, match="X holds no inputs"):
        door().fit([], [])


def test_a_broken_photo_is_named_under_fail(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(BadInputError, match=r"broken\.png"):
        door().fit([*PHOTOS, str(tmp_path / "broken.png")], [*KINDS, "noon"])


def test_a_broken_photo_is_skipped_on_demand(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    X, y = [str(tmp_path / "broken.png"), *PHOTOS], ["noon", *KINDS]
    fitted = door(on_bad_input="skip").fit(X, y)
    assert fitted.model_.results["label"].n_train == 24
    assert fitted.predict(X).tolist() == [None, *KINDS]
    proba = fitted.predict_proba(X)
    assert np.isnan(proba[0]).all()
    assert not np.isnan(proba[1:]).any()
    np.testing.assert_array_equal(proba[1:], door().fit(PHOTOS, KINDS).predict_proba(PHOTOS))
    numbers = door(TransferRegressor, on_bad_input="skip").fit(X, [0.0, *BRIGHTNESS]).predict(X)
    assert np.isnan(numbers).tolist() == [True] + [False] * 24
    matrix = door(LayerEmbedder, on_bad_input="skip").fit(X).transform(X)
    assert np.isnan(matrix).all(axis=1).tolist() == [True] + [False] * 24


def test_unknown_words_are_refused():
    with pytest.raises(OptionError, match="on_bad_input is 'ignore', but must be fail or skip"):
        door(on_bad_input="ignore").fit(PHOTOS, KINDS)
    with pytest.raises(UnknownNameError, match="Did you mean 'top'"):
        door(layers=["topp"]).fit(PHOTOS, KINDS)
    with pytest.raises(UnknownNameError, match="Did you mean 'ridge'"):
        door(head="rigde").fit(PHOTOS, KINDS)


# ---------------------------------------------------------------- layers, fusion, heads


def test_layers_are_slices_of_the_whole():
    whole = door(LayerEmbedder).fit(PHOTOS)
    matrix = whole.transform(PHOTOS)
    assert list(whole.layer_slices_) == [f"small/{tap}" for tap in WIDTHS]
    for tap in WIDTHS:
        one = door(LayerEmbedder, layers=[tap]).fit_transform(PHOTOS)
        np.testing.assert_array_equal(one, matrix[:, whole.layer_slices_[f"small/{tap}"]])
    names = whole.get_feature_names_out().tolist()
    assert names[:2] == ["small/low:0", "small/low:1"]
    assert len(names) == WIDTH


def test_embedder_in_a_pipeline_with_a_fuser_and_a_head():
    embedder = door(LayerEmbedder)
    slices = clone(embedder).fit(PHOTOS).layer_slices_
    chain = make_pipeline(embedder, ConcatFusion(slices), LogisticRegression())
    assert chain.fit(PHOTOS, KINDS).score(PHOTOS, KINDS) == 1.0
    assert (
        make_pipeline(door(LayerEmbedder), LogisticRegression())
        .fit(PHOTOS, KINDS)
        .score(PHOTOS, KINDS)
        == 1.0
    )


def test_any_classifier_of_scikit_learn_is_a_head():
    fitted = door(head=LogisticRegression(C=0.1)).fit(PHOTOS, KINDS)
    assert fitted.score(PHOTOS, KINDS) == 1.0


def test_pandas_comes_out_when_asked_for():
    frame = door(LayerEmbedder).set_output(transform="pandas").fit_transform(PHOTOS)
    assert isinstance(frame, pd.DataFrame)
    assert frame.columns[0] == "small/low:0"
    assert frame.shape == (24, WIDTH)


def test_heads_do_not_mind_pandas_as_the_output_of_everything():
    plain = door(head="auto").fit(PHOTOS, KINDS).predict_proba(PHOTOS)
    with config_context(transform_output="pandas"):
        fitted = door(head="auto").fit(PHOTOS, KINDS)
        inside = fitted.predict_proba(PHOTOS)
    np.testing.assert_array_equal(inside, plain)
    np.testing.assert_array_equal(fitted.predict_proba(PHOTOS), plain)


# ---------------------------------------------------------------- embedded once


def test_cross_validation_embeds_every_photo_once(counting, tmp_path):
    clf = TransferClassifier(counting, head="ridge", cache_dir=tmp_path / "cache")
    scores = cross_val_score(clf, PHOTOS, KINDS, cv=3, error_score="raise")
    assert scores.tolist() == [1.0, 1.0, 1.0]
    assert CountingNet.seen == 24
    cross_val_score(clf, PHOTOS, KINDS, cv=4, error_score="raise")
    clf.fit(PHOTOS, KINDS).predict(PHOTOS)
    assert CountingNet.seen == 24
    assert rows_in(tmp_path / "cache") == 24


def test_a_grid_over_layers_fusion_and_head_embeds_nothing_again(counting, tmp_path):
    clf = TransferClassifier(counting, cache_dir=tmp_path / "cache").fit(PHOTOS, KINDS)
    seen = CountingNet.seen
    assert seen >= 24
    grid = {"layers": ["all", ["top"]], "fusion": ["last", "concat"], "head": ["ridge", "lda"]}
    search = GridSearchCV(clf, grid, cv=2, error_score="raise").fit(PHOTOS, KINDS)
    assert search.best_score_ == 1.0
    assert CountingNet.seen == seen


def test_copies_of_one_photo_are_one_row(tmp_path):
    clf = door(cache_dir=tmp_path / "cache")
    clf.fit(np.concatenate([PHOTOS, PHOTOS]), KINDS + KINDS)
    assert rows_in(tmp_path / "cache") == 24


def test_without_a_cache_folder_nothing_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    door().fit(PHOTOS, KINDS)
    assert not list(tmp_path.glob("*.h5"))


@pytest.mark.slow
def test_two_processes_share_one_cache(tmp_path):
    clf = door(cache_dir=tmp_path / "cache")
    scores = cross_val_score(clf, PHOTOS, KINDS, cv=4, n_jobs=2, error_score="raise")
    assert scores.tolist() == [1.0] * 4
    assert rows_in(tmp_path / "cache") == 24


# ---------------------------------------------------------------- weights, groups, routing


def test_weights_of_zero_leave_rows_out():
    wrong = KINDS[:20] + ["noon"] * 4
    weights = np.array([1.0] * 20 + [1e-9] * 4)
    heavy = door(head=LogisticRegression(C=100)).fit(PHOTOS, wrong)
    light = door(head=LogisticRegression(C=100)).fit(PHOTOS, wrong, sample_weight=weights)
    night = light.predict_proba(PHOTOS[20:])[:, light.classes_.tolist().index("night")]
    assert (night > heavy.predict_proba(PHOTOS[20:])[:, 1]).all()
    assert light.predict(PHOTOS[20:]).tolist() == ["night"] * 4


@pytest.mark.parametrize("name", ["sample_weight", "groups"])
def test_weights_and_groups_of_another_length_are_refused(name):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        door().fit(PHOTOS, KINDS, **{name: np.ones(5)})


def test_groups_may_be_a_series_with_any_index():
    groups = pd.Series([n % 6 for n in range(24)], index=range(50, 74))
    assert door().fit(PHOTOS, KINDS, groups=groups).score(PHOTOS, KINDS) == 1.0


def test_metadata_is_routed():
    weights, groups = np.ones(24), np.arange(24) % 6
    with config_context(enable_metadata_routing=True):
        clf = door().set_fit_request(sample_weight=True, groups=True)
        clf.set_score_request(sample_weight=True)
        scores = cross_val_score(
            clf, PHOTOS, KINDS, cv=GroupKFold(3), error_score="raise",
            params={"sample_weight": weights, "groups": groups},
        )  # fmt: skip
    assert scores.tolist() == [1.0] * 3


# ---------------------------------------------------------------- what is taken away


def test_a_saved_door_is_a_model(tmp_path):
    fitted = door().fit(PHOTOS, KINDS)
    fitted.save(tmp_path / "m.safetensors")
    model = TransferModel.load(tmp_path / "m.safetensors", backbone=small_backbone())
    np.testing.assert_array_equal(model.predict_proba(PHOTOS), fitted.predict_proba(PHOTOS))
    assert model.predict(PHOTOS).tolist() == KINDS


def test_numbers_are_predicted(tmp_path):
    fitted = door(TransferRegressor, head="auto").fit(PHOTOS, BRIGHTNESS)
    assert fitted.score(PHOTOS, BRIGHTNESS) > 0.95
    fitted.save(tmp_path / "m.safetensors")
    model = TransferModel.load(tmp_path / "m.safetensors", backbone=small_backbone())
    np.testing.assert_array_equal(model.predict(PHOTOS), fitted.predict(PHOTOS))


def test_a_module_of_ones_own_is_a_backbone():
    module = nn.Sequential(nn.Conv2d(3, 5, 3, stride=4), nn.ReLU(), nn.Conv2d(5, 7, 3, stride=4))
    torch_made = load_backbone(module, name="mine", layers=["0", "2"], preprocess=PREPROCESS)
    matrix = LayerEmbedder(torch_made).fit_transform(PHOTOS)
    assert matrix.shape == (24, 12)
