"""Fusers against plain numpy and scikit-learn, and the promises that hold for all of them."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from pipeline.errors import InputError, OptionError, UnknownNameError
from pipeline.fusion import (
    FUSERS,
    AverageFusion,
    ConcatFusion,
    SingleLayer,
    WeightedFusion,
    make_fuser,
)
from pipeline.fusion.slices import find_layer

SLICES = {"net/low": slice(0, 3), "net/middle": slice(3, 8), "net/high": slice(8, 12)}
NAMES = [*FUSERS, "single:middle"]
SCALINGS = ["trace", "standard", "shrunk", "l2", "none"]


def rows(n=40, seed=0):
    """Layers on very different scales, with a constant feature in one of them."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 12)) * np.r_[np.full(3, 0.01), np.full(5, 50.0), np.ones(4)] + 7
    X[:, 4] = 3.25
    y = np.where(X[:, 8] > 7, "up", "down")
    return X, y


def numpy_scaled(X, scaling):
    """Every layer by the formula of the docstring, feature by feature."""
    live = X.std(axis=0) > 1e-9
    out = []
    for span in SLICES.values():
        layer = X[:, span].astype(float)
        if scaling == "l2":
            width = X.shape[1] / len(SLICES)
            out.append(layer / np.linalg.norm(layer, axis=1, keepdims=True) * np.sqrt(width))
            continue
        if scaling == "none":
            out.append(layer)
            continue
        layer = layer - layer.mean(axis=0)
        if scaling == "standard":
            layer = layer / np.where(live[span], layer.std(axis=0), 1)
        if scaling == "shrunk":
            own = layer.var(axis=0)
            layer = layer / np.sqrt((own + own[live[span]].mean()) / 2)
        total = layer.var(axis=0).sum()
        out.append(layer * np.sqrt(live.sum() / len(SLICES) / total))
    return out


@parametrize_with_checks(
    [
        *[ConcatFusion(scaling=scaling) for scaling in SCALINGS],
        AverageFusion(),
        WeightedFusion(),
        WeightedFusion(weights=None),
        SingleLayer(),
    ]
)
def test_fusers_are_what_scikit_learn_asks_for(estimator, check):
    check(estimator)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_concat_is_the_scaled_layers_side_by_side(scaling):
    X, _ = rows()
    fused = ConcatFusion(SLICES, scaling=scaling).fit_transform(X)
    np.testing.assert_allclose(fused, np.hstack(numpy_scaled(X, scaling)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scaling", ["trace", "standard", "shrunk"])
def test_every_layer_has_the_same_variance_and_features_have_one_on_average(scaling):
    X, _ = rows()
    fused = ConcatFusion(SLICES, scaling=scaling).fit_transform(X)
    totals = [fused[:, span].var(axis=0).sum() for span in SLICES.values()]
    np.testing.assert_allclose(totals, 11 / 3)


def test_standard_scaling_of_one_layer_is_standard_scaler():
    X, y = rows()
    X = np.delete(X, 4, axis=1)
    np.testing.assert_allclose(
        ConcatFusion(scaling="standard").fit_transform(X), StandardScaler().fit_transform(X)
    )
    for name, span in {"low": slice(0, 3), "high": slice(7, 11)}.items():
        ours = make_pipeline(
            SingleLayer({"low": slice(0, 3), "high": slice(7, 11)}, layer=name, scaling="standard"),
            RidgeClassifierCV(),
        ).fit(X, y)
        theirs = make_pipeline(StandardScaler(), RidgeClassifierCV()).fit(X[:, span], y)
        np.testing.assert_allclose(
            ours.decision_function(X), theirs.decision_function(X[:, span]), atol=1e-9
        )


def test_moments_of_many_rows_are_those_of_numpy():
    rng = np.random.default_rng(1)
    X = (1000 + rng.normal(size=(10_000, 3))).astype(np.float32)
    fuser = ConcatFusion().fit(X)
    exact = X.astype(np.float64)
    np.testing.assert_allclose(fuser.offset_, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(fuser.factor_, np.sqrt(3 / exact.var(axis=0).sum()), rtol=1e-9)


@pytest.mark.parametrize("scaling", ["trace", "standard", "shrunk"])
def test_a_feature_constant_in_fit_is_zero_from_then_on(scaling):
    X, _ = rows()
    fuser = ConcatFusion(SLICES, scaling=scaling).fit(X)
    moved = X.copy()
    moved[:, 4] += 1e6
    assert (fuser.transform(moved)[:, 4] == 0).all()
    assert np.isfinite(ConcatFusion(scaling=scaling).fit_transform(np.ones((3, 2)))).all()


def test_average_of_equal_widths_is_the_mean():
    X, _ = rows()
    slices = {"a": slice(0, 4), "b": slice(4, 8), "c": slice(8, 12)}
    fused = AverageFusion(slices, scaling="none").fit_transform(X)
    np.testing.assert_allclose(fused, (X[:, :4] + X[:, 4:8] + X[:, 8:]) / 3)


def test_narrow_layers_keep_their_lengths_and_angles():
    X, _ = rows()
    fuser = AverageFusion(SLICES).fit(X)
    assert fuser.transform(X).shape == (len(X), 5)
    for layer, plane in fuser.maps_.items():
        np.testing.assert_allclose(plane @ plane.T, np.eye(len(plane)), atol=1e-6, err_msg=layer)
    only = AverageFusion({"net/low": slice(0, 3), "net/middle": slice(3, 8)}, scaling="none")
    alone = X.copy()
    alone[:, 3:8] = 0
    fused = only.fit(X).transform(alone)
    np.testing.assert_allclose(fused @ fused.T, X[:, :3] @ X[:, :3].T / 4, rtol=1e-5)


def test_weights_are_what_the_layers_are_multiplied_by():
    X, _ = rows()
    slices = {"a": slice(0, 4), "b": slice(4, 8), "c": slice(8, 12)}
    by_order = WeightedFusion(slices, weights=[2, 0, -1], scaling="none").fit_transform(X)
    np.testing.assert_allclose(by_order, 2 * X[:, :4] - X[:, 8:])
    by_name = WeightedFusion(slices, weights={"c": -1, "a": 2}, scaling="none").fit_transform(X)
    np.testing.assert_array_equal(by_name, by_order)
    equal = WeightedFusion(slices, weights=None).fit_transform(X)
    np.testing.assert_array_equal(equal, AverageFusion(slices).fit_transform(X))


@pytest.mark.parametrize("kind", ["class", "number", "multilabel"])
def test_learned_weights_leave_noise_and_beat_equal_ones(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 90)).astype(np.float32)
    score = X[:, :30] @ rng.normal(size=(30, 3))
    y = {
        "class": np.array(["a", "b", "c"])[score.argmax(axis=1)],
        "number": score[:, 0],
        "multilabel": (score > 0).astype(int),
    }[kind]
    slices = {"good": slice(0, 30), "noise": slice(30, 60), "more noise": slice(60, 90)}
    learned = WeightedFusion(slices).fit(X[:300], y[:300])
    assert learned.weights_.sum() == pytest.approx(1)
    assert learned.weights_[0] > 2 * learned.weights_[1:].max()
    if kind == "class":
        heads = [
            make_pipeline(fuser, RidgeClassifierCV()).fit(X[:300], y[:300])
            for fuser in (learned, AverageFusion(slices))
        ]
        with_weights, without = (head.score(X[300:], y[300:]) for head in heads)
        assert with_weights > without + 0.05


def test_labels_without_meaning_leave_weights_equal():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 40)), rng.integers(0, 3, 200)
    weights = WeightedFusion({"a": slice(0, 20), "b": slice(20, 40)}).fit(X, y).weights_
    np.testing.assert_allclose(weights, 0.5, atol=0.15)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_permuting_rows_permutes_what_comes_out(name, seed):
    X, y = rows()
    order = np.random.default_rng(seed).permutation(len(X))
    fuser = make_fuser(name, layer_slices=SLICES).fit(X, y)
    np.testing.assert_array_equal(fuser.transform(X)[order], fuser.transform(X[order]))


def test_another_layer_of_equal_width_changes_nothing_about_the_others():
    X, _ = rows()
    two = {"a": slice(0, 4), "b": slice(4, 8)}
    three = {**two, "c": slice(8, 12)}
    alone, joined = (ConcatFusion(s, scaling="l2").fit(X).transform(X)[:, :8] for s in (two, three))
    np.testing.assert_allclose(alone, joined)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_widened_and_single_stays_single(name):
    X, y = rows()
    fuser = make_fuser(name, layer_slices=SLICES).fit(X, y)
    assert fuser.transform(X.astype(np.float16)).dtype == np.float32
    assert fuser.transform(X.astype(np.float32)).dtype == np.float32
    half, single = X.astype(np.float16), X.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(fuser.fit_transform(half, y), fuser.fit_transform(single, y))


@pytest.mark.parametrize("name", NAMES)
def test_fusers_name_their_columns_in_pandas_and_polars(name):
    X, y = rows()
    fuser = make_fuser(name, layer_slices=SLICES).fit(X, y)
    names = list(fuser.get_feature_names_out())
    assert len(set(names)) == len(names) == fuser.transform(X).shape[1]
    assert all(":" in column for column in names)
    in_pandas = clone(fuser).set_output(transform="pandas").fit_transform(X, y)
    in_polars = clone(fuser).set_output(transform="polars").fit_transform(X, y)
    assert isinstance(in_pandas, pd.DataFrame)
    assert isinstance(in_polars, pl.DataFrame)
    assert list(in_pandas.columns) == in_polars.columns == names


def test_concat_names_layer_and_index():
    fuser = ConcatFusion({"net/low": slice(0, 2), "net/high": slice(2, 3)}).fit(np.eye(3))
    assert fuser.get_feature_names_out().tolist() == ["net/low:0", "net/low:1", "net/high:0"]


def test_a_made_fuser_gives_arrays_whatever_scikit_learn_is_set_to():
    X, y = rows()
    with sklearn.config_context(transform_output="pandas"):
        fuser = make_fuser("concat", layer_slices=SLICES).fit(X, y)
        assert isinstance(fuser.transform(X), np.ndarray)


@pytest.mark.parametrize("name", NAMES)
def test_fusers_pickle_and_fit_again_to_the_same_numbers(name):
    X, y = rows()
    fuser = make_fuser(name, layer_slices=SLICES, random_state=3).fit(X, y)
    back = pickle.loads(pickle.dumps(fuser))
    np.testing.assert_array_equal(back.transform(X), fuser.transform(X))
    np.testing.assert_array_equal(clone(fuser).fit(X, y).transform(X), fuser.transform(X))


def test_a_grid_reaches_weights_and_layers():
    X, y = rows()
    grid = {"weightedfusion__weights": [[1, 0, 0], [0, 0, 1]]}
    pipeline = make_pipeline(WeightedFusion(SLICES), RidgeClassifierCV())
    found = GridSearchCV(pipeline, grid, cv=3).fit(X, y)
    assert found.best_params_ == {"weightedfusion__weights": [0, 0, 1]}


def test_one_layer_is_found_by_its_full_name_or_its_tap():
    X, _ = rows()
    for name in ("middle", "net/middle"):
        fuser = SingleLayer(SLICES, layer=name).fit(X)
        assert (fuser.layer_, fuser.transform(X).shape[1]) == ("net/middle", 5)
    assert SingleLayer(SLICES).fit(X).layer_ == "net/high"
    assert make_fuser("single:low", layer_slices=SLICES).layer == "net/low"


def test_a_tap_of_two_backbones_is_ambiguous():
    with pytest.raises(UnknownNameError, match=r"Accepted: one/top, two/top\."):
        find_layer("top", ["one/top", "two/top", "two/low"])


def test_columns_outside_the_slices_are_left_alone():
    X, _ = rows()
    spoiled = X.copy()
    spoiled[:, 3:8] *= -1e3
    two = {"low": slice(0, 3), "high": slice(8, 12)}
    for fuser in (ConcatFusion(two), ConcatFusion(two, scaling="l2"), AverageFusion(two)):
        np.testing.assert_array_equal(fuser.fit_transform(X), fuser.fit_transform(spoiled))


@pytest.mark.parametrize(
    ("act", "error", "sentence"),
    [
        (
            lambda X: make_fuser("concatt", layer_slices=SLICES),
            UnknownNameError,
            "unknown fusion 'concatt'. Did you mean 'concat'?",
        ),
        (
            lambda X: make_fuser("single:midle", layer_slices=SLICES),
            UnknownNameError,
            "unknown layer 'midle'.",
        ),
        (lambda X: ConcatFusion({}).fit(X), InputError, "layer_slices is empty. Give a slice"),
        (
            lambda X: ConcatFusion({"a": slice(0, 13)}).fit(X),
            InputError,
            "layer 'a' is slice(0, 13, None), but X has the columns 0 to 11. "
            "Give the layer_slices that belong to this X.",
        ),
        (
            lambda X: ConcatFusion({"a": slice(0, 6), "b": slice(5, 12)}).fit(X),
            InputError,
            "layers 'a' and 'b' share columns. Give each its own.",
        ),
        (
            lambda X: ConcatFusion(scaling="minmax").fit(X),
            OptionError,
            "scaling is 'minmax', but must be one of trace, standard, shrunk, l2, none.",
        ),
        (
            lambda X: WeightedFusion(SLICES).fit(X),
            InputError,
            "fit requires y to be passed, but the target y is None. Give it labels",
        ),
        (
            lambda X: WeightedFusion(SLICES, weights=[1, 2]).fit(X),
            OptionError,
            "weights is [1, 2], but must be 'learned', None, or 3 finite numbers, "
            "one for each of net/low, net/middle, net/high.",
        ),
        (
            lambda X: WeightedFusion(SLICES, weights="equal").fit(X),
            OptionError,
            "weights is 'equal', but must be",
        ),
        (
            lambda X: WeightedFusion(SLICES, weights={"hihg": 1}).fit(X),
            UnknownNameError,
            "unknown layer 'hihg'.",
        ),
    ],
)
def test_what_is_wrong_is_said(act, error, sentence):
    with pytest.raises(error) as caught:
        act(rows()[0])
    assert sentence in str(caught.value)
