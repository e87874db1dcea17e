"""A linear head as one affine map of the raw columns: it predicts what the head predicts."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import (
    HuberRegressor,
    LinearRegression,
    LogisticRegression,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler
from sklearn.svm import SVC

from pipeline.errors import OptionError
from pipeline.fusion import ConcatFusion, make_fuser
from pipeline.heads import Folded, Problem, fit_ridge, folded, make_head
from pipeline.heads import folding as folding_module
from pipeline.samples import Target

LABELS = ["ant", "bee", "cat", "dog"]
RIDGE_FUSIONS = [
    "last", "single:low", "concat", "average", "weighted", "evidence", "late", "forward",
    "selection",
]  # fmt: skip
FUSER_FUSIONS = ["last", "single:low", "concat", "average", "weighted"]
CLASS_CASES = [
    *[("ridge", fusion) for fusion in RIDGE_FUSIONS],
    *[(head, fusion) for head in ("logistic", "svm", "lda") for fusion in FUSER_FUSIONS],
    ("linear", "concat"),
    ("layer_ridge", None),
]
NUMBER_CASES = [
    *[("ridge", fusion) for fusion in RIDGE_FUSIONS],
    *[("svm", fusion) for fusion in FUSER_FUSIONS],
    ("linear", "weighted"),
    ("layer_ridge", None),
]
SLICES = {"low": slice(0, 6), "high": slice(6, 11)}


def fitted_on(X, y, head, fusion, kind):
    """A head and what fuses the layers for it, as training puts them together."""
    if fusion is None:
        return make_head(head, kind).set_params(layer_slices=SLICES).fit(X, y)
    if head == "ridge" and kind != "multilabel":
        problem = Problem(X, SLICES, Target.decide("y", y, kind))
        found, _ = fit_ridge(problem, fusion, class_weight=None, random_state=0, layers=SLICES)
        return found
    own = make_head(head, kind)
    if head == "linear":
        getattr(own, "estimator", own).set_params(max_epochs=2)
    return make_pipeline(make_fuser(fusion, layer_slices=SLICES), own).fit(X, y)


def layers(classes=3, n=90):
    """Two layers side by side, of which both know the class, and the classes."""
    codes = np.arange(n) % classes
    means = np.concatenate([0.5 * np.eye(6)[codes], 3 * np.eye(5)[codes]], axis=1)
    return means + np.random.default_rng(0).normal(size=(n, 11)), codes


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("head", "fusion"), CLASS_CASES)
def test_every_linear_head_on_every_fusion_is_one_map_of_the_columns(head, fusion, classes):
    X, codes = layers(classes)
    fitted = fitted_on(X, np.array(LABELS)[codes], head, fusion, "class")
    own = folded(fitted, "class", X.shape[1])
    assert own.coef.shape == (classes, X.shape[1])
    assert own.coef.dtype == own.intercept.dtype == np.float64
    assert own.classes.tolist() == LABELS[:classes] == fitted.classes_.tolist()
    logits = X @ own.coef.T + own.intercept
    np.testing.assert_allclose(
        softmax(logits, axis=1), fitted.predict_proba(X), atol=1e-12, rtol=1e-9
    )
    np.testing.assert_allclose(logits.sum(axis=1), 0, atol=1e-9 * np.abs(logits).max())
    np.testing.assert_array_equal(own.scores(X), logits)
    np.testing.assert_allclose(own.outputs(X), softmax(logits, axis=1), rtol=1e-12)


@pytest.mark.parametrize(("head", "fusion"), NUMBER_CASES)
def test_numbers_are_a_map_of_one_output(head, fusion):
    X, codes = layers()
    fitted = fitted_on(X, 1e3 + 40.0 * codes + X[:, 0], head, fusion, "number")
    own = folded(fitted, "number", X.shape[1])
    assert own.coef.shape == (1, X.shape[1])
    assert own.classes is None
    assert np.ptp(fitted.predict(X)) > 1
    np.testing.assert_allclose(
        (X @ own.coef.T + own.intercept)[:, 0], fitted.predict(X), rtol=1e-11
    )
    np.testing.assert_array_equal(own.outputs(X), own.scores(X))


@pytest.mark.parametrize(
    ("head", "fusion"),
    [
        ("logistic", "weighted"),
        ("svm", "average"),
        ("lda", "last"),
        ("ridge", "concat"),
        ("linear", "concat"),
    ],
)
def test_several_labels_are_a_logit_each(head, fusion):
    X, codes = layers()
    fitted = fitted_on(
        X, np.stack([codes > 0, codes > 1], axis=1).astype(int), head, fusion, "multilabel"
    )
    own = folded(fitted, "multilabel", X.shape[1])
    assert own.classes.tolist() == [0, 1]
    found = expit(X @ own.coef.T + own.intercept)
    np.testing.assert_allclose(found, fitted.predict_proba(X), atol=1e-12, rtol=1e-9)
    np.testing.assert_allclose(own.outputs(X), found, rtol=1e-12)


def points(classes=3):
    rng = np.random.default_rng(0)
    codes = np.arange(90) % classes
    return rng.normal(size=(90, 7)) + 3 * np.eye(7)[codes], np.array(LABELS)[codes]


def test_a_label_that_all_rows_have_or_none_is_certain_wherever_a_row_lies():
    X, _ = points()
    Y = np.stack([X[:, 0] > 0, np.ones(90), np.zeros(90)], axis=1).astype(int)
    head = make_head("logistic", "multilabel", labels=["some", "all", "none"]).fit(X, Y)
    own = folded(head, "multilabel", 7)
    assert (own.coef[1:] == 0).all()
    far = 1e6 * X
    assert (own.outputs(far)[:, 1] == 1).all()
    np.testing.assert_allclose(own.outputs(far)[:, 2], 0, atol=1e-15)
    np.testing.assert_allclose(own.outputs(X), head.predict_proba(X), atol=1e-12)


@pytest.mark.parametrize(
    "head",
    [
        LogisticRegression(),
        LinearDiscriminantAnalysis(),
        make_pipeline(StandardScaler(), PCA(4), LogisticRegression(C=0.1)),
        make_head("svm", "class").estimator.set_params(estimator=RidgeClassifier()),
    ],
    ids=["logistic", "lda", "pipeline", "scores with a temperature"],
)
@pytest.mark.parametrize("classes", [2, 4])
def test_a_classifier_of_ones_own_is_folded_if_it_is_linear(head, classes):
    X, y = points(classes)
    head = head.fit(X, y)
    own = folded(head, "class", 7)
    np.testing.assert_allclose(
        softmax(X @ own.coef.T + own.intercept, axis=1), head.predict_proba(X), atol=1e-12
    )


def test_coefficients_are_those_of_logistic_regression_but_for_what_all_classes_share():
    X, y = points()
    head = LogisticRegression().fit(X, y)
    own = folded(head, "class", 7)
    np.testing.assert_allclose(own.coef, head.coef_ - head.coef_.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(own.intercept, head.intercept_ - head.intercept_.mean(), atol=1e-12)


@pytest.mark.parametrize("head", [LinearRegression(), HuberRegressor(max_iter=1000)])
def test_a_regressor_of_ones_own_is_folded_if_it_is_linear(head):
    X, _ = points()
    head = head.fit(X, X @ np.arange(7) + 100)
    own = folded(head, "number", 7)
    np.testing.assert_allclose(own.coef[0], head.coef_, atol=1e-11)
    np.testing.assert_allclose(own.intercept, head.intercept_, rtol=1e-12)


def test_many_columns_are_read_off_in_blocks(monkeypatch):
    X, y = points()
    head = LogisticRegression().fit(X, y)
    whole = folded(head, "class", 7)
    monkeypatch.setattr(folding_module, "_VALUES_AT_ONCE", 20)
    widest = []
    scores = LogisticRegression.decision_function
    monkeypatch.setattr(
        LogisticRegression,
        "decision_function",
        lambda self, rows: (widest.append(len(rows)), scores(self, rows))[1],
    )
    own = folded(head, "class", 7)
    assert widest[:5] == [1, 2, 2, 2, 1]  # zero, then the seven unit vectors
    np.testing.assert_array_equal(own.coef, whole.coef)


def test_columns_far_from_zero_and_of_any_scale_lose_no_digit():
    X, y = points()
    scale = np.logspace(-4, 4, 7)
    head = make_pipeline(StandardScaler(), LogisticRegression()).fit(X * scale + 50 * scale, y)
    own = folded(head, "class", 7)
    moved = X * scale + 50 * scale
    np.testing.assert_allclose(own.outputs(moved), head.predict_proba(moved), atol=1e-9)


CLASS_TAIL = (
    "Linear are logistic, ridge, layer_ridge, svm, lda, linear, and what of scikit-learn "
    "predicts from linear scores. Train with one of them."
)
NO_SCORES = "it has no decision_function"
NO_SUMS = "its scores are no weighted sums of the columns"
NO_SOFTMAX = "its probabilities are not the softmax of its scores"


@pytest.mark.parametrize(
    ("head", "called", "reason"),
    [
        (
            make_head("forest", "class").set_params(n_estimators=5),
            "RandomForestClassifier",
            NO_SCORES,
        ),
        (make_head("knn", "class"), "KNeighborsClassifier", NO_SCORES),
        (
            make_head("boosting", "class").set_params(max_iter=5),
            "HistGradientBoostingClassifier",
            NO_SUMS,
        ),
        (make_head("mlp", "class").set_params(max_epochs=2), "TorchClassifier", NO_SUMS),
        (SVC(), "SVC", NO_SUMS),
        (SGDClassifier(loss="log_loss"), "SGDClassifier", NO_SOFTMAX),
        (make_pipeline(Normalizer(), LogisticRegression()), "LogisticRegression", NO_SUMS),
        (
            Pipeline([("fuse", ConcatFusion(scaling="l2")), ("head", LogisticRegression())]),
            "LogisticRegression",
            NO_SUMS,
        ),
    ],
    ids=["forest", "knn", "boosting", "mlp", "kernel", "one against the rest", "rows", "l2"],
)
def test_a_head_that_is_not_linear_is_refused_with_those_that_are(head, called, reason):
    X, y = points()
    fitted = head.fit(X, y)
    with pytest.raises(OptionError) as caught:
        folded(fitted, "class", 7)
    assert str(caught.value) == (
        f"the head {called} is not linear in the layers: {reason}. {CLASS_TAIL}"
    )


def test_random_features_are_refused_where_the_best_head_needs_them():
    X = np.random.default_rng(0).normal(size=(200, 2))
    y = np.where((X**2).sum(axis=1) > 1.4, "out", "in")
    head = make_head("best", "class").set_params(n_components=64).fit(X, y)
    with pytest.raises(OptionError, match="the head BestClassifier is not linear in the layers"):
        folded(head, "class", 2)


def test_the_best_head_is_folded_where_lines_are_all_that_it_is_made_of():
    X, y = points()
    head = make_head("best", "class").set_params(n_components=64).fit(X, y)
    del head.members_["random features"]
    own = folded(head, "class", 7)
    np.testing.assert_allclose(own.outputs(X), head.predict_proba(X), atol=1e-12)


def test_a_head_that_fails_on_some_numbers_is_refused_for_that():
    X, y = points()
    rooted = make_pipeline(FunctionTransformer(np.sqrt), LogisticRegression()).fit(np.abs(X), y)
    with pytest.raises(OptionError, match=r"LogisticRegression is not linear in the layers: Input"):
        folded(rooted, "class", 7)


@pytest.mark.parametrize("name", ["forest", "knn", "boosting", "mlp"])
def test_numbers_that_do_not_follow_a_line_are_refused(name):
    X, _ = points()
    few = {"forest": {"n_estimators": 5}, "mlp": {"max_epochs": 2}}.get(name, {})
    head = make_head(name, "number").set_params(**few).fit(X, X[:, 0])
    with pytest.raises(OptionError) as caught:
        folded(head, "number", 7, name=name)
    assert str(caught.value) == (
        f"the head {name} is not linear in the layers: its predictions are no weighted sums of "
        "the columns. Linear are ridge, layer_ridge, svm, linear, and what of scikit-learn "
        "predicts from linear scores. Train with one of them."
    )


@pytest.mark.parametrize(
    "own",
    [RandomForestClassifier(10), HistGradientBoostingClassifier(max_iter=5)],
    ids=["forest", "boosting"],
)
def test_labels_that_trees_tell_apart_are_refused(own):
    X, _ = points()
    head = make_head(own, "multilabel").fit(X, (X[:, :2] > 0).astype(int))
    with pytest.raises(OptionError) as caught:
        folded(head, "multilabel", 7)
    assert str(caught.value).startswith(f"the head {type(own).__name__} is not linear")
    assert "Linear are logistic, ridge, svm, lda, linear, and" in str(caught.value)


def maps(kind, classes, width=5):
    rng = np.random.default_rng(1)
    n = 1 if classes is None else len(classes)
    names = None if classes is None else np.array(classes)
    return Folded(rng.normal(size=(n, width)), rng.normal(size=n), names, kind)


@pytest.mark.parametrize(
    ("kind", "classes"),
    [
        ("class", LABELS[:2]),
        ("class", LABELS),
        ("class", [3, 7, 9]),
        ("multilabel", ["a", "b", "c"]),
        ("multilabel", ["a"]),
        ("number", None),
    ],
)
def test_as_an_estimator_it_predicts_the_same_and_fits_another(kind, classes):
    own = maps(kind, classes)
    head = own.estimator()
    X = np.random.default_rng(2).normal(size=(40, 5))
    expected = own.outputs(X)
    if kind == "number":
        np.testing.assert_allclose(head.predict(X), expected[:, 0], rtol=1e-12)
    else:
        np.testing.assert_allclose(head.predict_proba(X), expected, atol=1e-12)
        assert head.classes_.tolist() == classes
    again = folded(Pipeline([("head", head)]), kind, 5)
    np.testing.assert_allclose(again.outputs(X), expected, atol=1e-9)
    if kind == "class":
        assert (head.predict(X) == own.classes[expected.argmax(1)]).all()
        other = clone(head).fit(X, np.array(["up", "down"])[np.arange(40) % 2])
        assert other.classes_.tolist() == ["down", "up"]
        assert head.classes_.tolist() == classes


def test_softened_scores_are_so_many_times_smaller():
    random = np.random.default_rng(0)
    X = random.normal(size=(40, 3))
    own = folded(LogisticRegression().fit(X, np.arange(40) % 3), "class", 3)
    softened = own.softened(2.5)
    np.testing.assert_allclose(softened.scores(X), own.scores(X) / 2.5)
    np.testing.assert_allclose(softened.outputs(X), softmax(own.scores(X) / 2.5, axis=1))
    assert (softened.kind, softened.classes.tolist()) == ("class", [0, 1, 2])
