"""The layer-aware ridge against plain refits by numpy, scikit-learn, and what it promises."""

import numpy as np
import pytest
import ridge_by_hand as by_hand
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.metrics import accuracy_score, log_loss
from sklearn.preprocessing import StandardScaler

from pipeline.heads.evidence import evidence_penalties
from pipeline.heads.layer_ridge import LayerRidgeClassifier, LayerRidgeRegressor
from pipeline.heads.linear_map import LinearMap
from pipeline.heads.moments import Moments
from pipeline.heads.ridge_rows import RidgeRows

SLICES = {"net/low": slice(0, 4), "net/mid": slice(4, 7), "net/high": slice(7, 12)}
SPANS = [(own.start, own.stop) for own in SLICES.values()]
D = 12
SHAPES = {"by moments": 40, "by features": 18, "by rows": 9}
"""Rows to 12 columns: at twice as many moments take over, at fewer the dual form."""
PENALTIES = {"net/low": 0.5, "net/mid": 4.0}
EACH = np.repeat([0.5, 4.0, 1.0], [4, 3, 5])


def numbers(n: int, seed: int = 0, outputs: int = 2):
    """Rows on scales of their own, numbers that the upper layer knows, and weights."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, D)) * np.linspace(0.3, 4, D) + np.linspace(-20, 20, D)
    Y = X[:, 7:9] @ rng.normal(size=(2, outputs)) + rng.normal(size=(n, outputs))
    return X, Y, rng.uniform(0.2, 3, n)


def animals(n: int = 60, seed: int = 0, classes: int = 3, apart: float = 2.0):
    """Three layers, of which the upper one knows the class, and the class."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    X = rng.normal(size=(n, D))
    X[:, 7:] += apart * np.eye(5)[codes]
    return X, np.array(["elk", "fox", "owl", "yak", "zho"])[codes]


def grouping(kind: str, n: int) -> list | None:
    """Name a group for each row; wide ones have more rows than there are features."""
    if kind == "alone":
        return None
    if kind == "wide":
        return ["a" if row < 15 else ("b" if row < 30 else None) for row in range(n)]
    return [f"g{row // 3}" if row % 7 else None for row in range(n)]


def regressor(**options) -> LayerRidgeRegressor:
    return LayerRidgeRegressor(SLICES, **{"penalties": PENALTIES, **options})


def classifier(**options) -> LayerRidgeClassifier:
    return LayerRidgeClassifier(SLICES, **{"penalties": "uniform", **options})


CASES = [
    (shape, kind)
    for shape in SHAPES
    for kind in ("alone", "small", "wide")
    if (shape, kind) not in {("by features", "wide"), ("by rows", "wide")}
]


@pytest.mark.parametrize(("shape", "kind"), CASES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scaling", ["shrunk", "standard", "trace"])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 100.0])
def test_weights_and_left_out_predictions_are_those_of_plain_refits(
    shape, kind, weighted, scaling, alpha
):
    X, Y, weight = numbers(SHAPES[shape])
    groups = grouping(kind, len(X))
    head = regressor(alphas=[alpha], scaling=scaling).fit(
        X, Y, sample_weight=weight if weighted else None, groups=groups
    )
    weight = weight if weighted else np.ones(len(X))
    factors = by_hand.scaled(X, SPANS, scaling, weight)
    families = by_hand.families_of(groups or [None] * len(X))
    coef, intercept = by_hand.line(X * factors, Y, weight, alpha * EACH)
    np.testing.assert_allclose(head.coef_, (factors[:, None] * coef).T, atol=1e-8)
    np.testing.assert_allclose(head.intercept_, intercept, atol=1e-7)
    np.testing.assert_allclose(head.predict(X), X * factors @ coef + intercept, atol=1e-8)
    expected = by_hand.left_out(X * factors, Y, weight, alpha * EACH, families)
    np.testing.assert_allclose(head.loo_prediction_, expected, rtol=1e-8, atol=1e-8)
    errors = ((expected - Y) ** 2).mean(axis=1)
    assert head.loo_mse_ == pytest.approx(np.average(errors, weights=weight))
    spread = np.average((Y - np.average(Y, axis=0, weights=weight)) ** 2, axis=0, weights=weight)
    assert head.loo_score_ == pytest.approx(1 - head.loo_mse_ / spread.mean())
    assert head.layer_penalties_ == pytest.approx(
        {"net/low": 0.5 * alpha, "net/mid": 4 * alpha, "net/high": alpha}
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["alone", "small"])
def test_strength_and_temperature_are_those_of_the_lowest_left_out_log_loss(shape, weighted, kind):
    alphas = [0.01, 0.3, 10.0, 300.0]
    X, Y, weight = numbers(SHAPES[shape], seed=3)
    y = np.array(["elk", "fox", "owl"])[np.argsort(np.argsort(Y[:, 0])) * 3 // len(Y)]
    groups = grouping(kind, len(X))
    head = classifier(alphas=alphas).fit(
        X, y, sample_weight=weight if weighted else None, groups=groups
    )
    weight = weight if weighted else np.ones(len(X))
    mapped = X * by_hand.scaled(X, SPANS, "shrunk", weight)
    one_hot = by_hand.indicators(y)
    softness = 1 / (weight.sum() + 2)  # Platt (1999): no probability of 0 or 1 is asked for
    soft = (1 - softness) * one_hot + softness / 3
    found = []
    for alpha in alphas:
        families = by_hand.families_of(groups or [None] * len(X))
        scores = by_hand.left_out(mapped, one_hot, weight, alpha, families)

        def loss(sharpness, scores=scores):
            return -weight @ (soft * log_softmax(scores * np.exp(sharpness), axis=1)).sum(axis=1)

        best = np.exp(-minimize_scalar(loss, bounds=(-12, 12), method="bounded").x)
        proba = softmax(scores / best, axis=1)
        found.append((log_loss(y, proba, sample_weight=weight), alpha, best, proba))
    expected, alpha, temperature, proba = min(found, key=lambda one: one[0])
    assert head.alpha_ == alpha
    assert head.temperature_ == pytest.approx(temperature, rel=1e-3)
    assert head.loo_log_loss_ == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(head.loo_proba_, proba, atol=1e-4)
    own = head.classes_[head.loo_proba_.argmax(axis=1)]
    assert head.loo_score_ == pytest.approx(accuracy_score(y, own, sample_weight=weight))
    coef, intercept = by_hand.line(mapped, one_hot, weight, alpha)
    given = softmax((mapped @ coef + intercept) / head.temperature_, axis=1)
    np.testing.assert_allclose(head.predict_proba(X), given, atol=1e-8)
    np.testing.assert_array_equal(head.predict(X), head.classes_[given.argmax(axis=1)])
    np.testing.assert_allclose(softmax(head.decision_function(X), axis=1), given, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_strengths_to_compare_lie_about_the_mean_eigenvalue(shape):
    X, Y, weight = numbers(SHAPES[shape], seed=1)
    head = regressor(penalties="uniform").fit(X, Y, sample_weight=weight)
    mapped = X * by_hand.scaled(X, SPANS, "shrunk", weight)
    centred = (mapped - np.average(mapped, axis=0, weights=weight)) * np.sqrt(weight)[:, None]
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    alphas = values[values > 1e-12 * values[0]].mean() * 10 ** np.linspace(-5, 2, 20)
    losses = [
        weight
        @ ((by_hand.left_out(mapped, Y, weight, a, by_hand.alone(len(X))) - Y) ** 2).sum(axis=1)
        for a in alphas
    ]
    assert head.alpha_ == pytest.approx(alphas[int(np.argmin(losses))])


@pytest.mark.parametrize("shape", SHAPES)
def test_scikit_learns_ridge_cv_sees_the_same_errors_and_picks_the_same_strength(shape):
    X, Y, _ = numbers(SHAPES[shape])
    y, alphas = Y[:, 0], np.logspace(-3, 3, 9)
    oracle = RidgeCV(alphas, store_cv_results=True).fit(StandardScaler().fit_transform(X), y)
    whole = LayerRidgeRegressor(scaling="standard", alphas=alphas).fit(X, y)
    assert whole.alpha_ == oracle.alpha_
    np.testing.assert_allclose(whole.predict(X), oracle.predict(StandardScaler().fit_transform(X)))
    for place, alpha in enumerate(alphas):
        head = LayerRidgeRegressor(scaling="standard", alphas=[alpha]).fit(X, y)
        np.testing.assert_allclose(
            (head.loo_prediction_ - y) ** 2, oracle.cv_results_[:, place], rtol=1e-6, atol=1e-10
        )


def test_scikit_learns_ridge_classifier_cv_sees_the_same_scores():
    """Its targets are -1 and 1, so its errors are twice ours."""
    X, y = animals()
    scaled = StandardScaler().fit_transform(X)
    oracle = RidgeClassifierCV([3.0], store_cv_results=True).fit(scaled, y)
    head = LayerRidgeClassifier(scaling="standard", alphas=[3.0]).fit(X, y)
    scores = by_hand.scores_of(head.loo_proba_, head.temperature_)
    np.testing.assert_allclose(
        4 * (scores - by_hand.indicators(y)) ** 2, oracle.cv_results_[:, :, 0], atol=1e-8
    )
    np.testing.assert_array_equal(head.predict(X), oracle.predict(scaled))
    np.testing.assert_allclose(2 * head.coef_, oracle.coef_ / np.std(X, axis=0), atol=1e-10)


def test_two_classes_at_next_to_no_strength_lie_along_fishers_direction():
    X, y = animals(80, classes=2)
    ours = classifier(alphas=[1e-9]).fit(X, y).coef_[0]
    theirs = LinearDiscriminantAnalysis().fit(X, y).coef_[0]
    assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) == pytest.approx(1)


def test_two_classes_have_one_row_of_weights_and_one_score():
    X, y = animals(classes=2)
    head = classifier().fit(X, y)
    assert head.coef_.shape == (1, D)
    assert head.intercept_.shape == (1,)
    score = head.decision_function(X)
    assert score.shape == (len(X),)
    np.testing.assert_allclose(head.predict_proba(X)[:, 1], 1 / (1 + np.exp(-score)))
    np.testing.assert_allclose(score, (X @ head.coef_[0] + head.intercept_) / head.temperature_)
    np.testing.assert_array_equal(head.predict(X), head.classes_[(score > 0).astype(int)])


def test_penalties_are_scales_of_the_layers():
    """A layer under four times the penalty is a layer of half the size under one for all."""
    X, Y, weight = numbers(40)
    factors = by_hand.scaled(X, SPANS, "shrunk", weight)
    banded = regressor(alphas=[2.0]).fit(X, Y, sample_weight=weight)
    own, intercept = by_hand.line(X * factors / np.sqrt(EACH), Y, weight, 2.0)
    expected = X * factors / np.sqrt(EACH) @ own + intercept
    np.testing.assert_allclose(banded.predict(X), expected, atol=1e-8)


# --- evidence -----------------------------------------------------------------------------------


def plain_evidence(X, Y, spans) -> np.ndarray:
    """The fixed point of MacKay (1992) from inverses written out, in the space of the rows.

    A hundredth of the variance is noise at least: few rows would be explained without any.
    """
    n, k = Y.shape
    kernels = [X[:, start:stop] @ X[:, start:stop].T for start, stop in spans]
    beta = n * k / np.sum(Y**2)
    alpha = np.full(len(spans), beta * n / 20)
    for _ in range(10):
        inverse = np.linalg.inv(
            sum(kernel / own for kernel, own in zip(kernels, alpha, strict=True)) + np.eye(n) / beta
        )
        pulled = inverse @ Y
        used = np.array([np.trace(inverse @ one) for one in kernels]) / alpha
        lengths = np.array([np.sum(pulled * (one @ pulled)) for one in kernels]) / alpha**2
        rss = np.sum(pulled**2) / beta**2
        before, alpha = alpha, k * used / lengths
        beta = min((n * k - k * used.sum()) / rss, 100 * n * k / np.sum(Y**2))
        if np.abs(np.log(alpha / before)).max() < 1e-2:
            break
    return alpha / beta


@pytest.mark.parametrize("n", [60, 9], ids=["tall", "wide"])
def test_evidence_penalties_are_those_of_the_plain_loop_by_features_and_by_rows(n):
    X, Y, _ = numbers(n, seed=2)
    X = X * by_hand.scaled(X, SPANS, "shrunk", np.ones(n))
    moments = Moments.starting_at(X[0], Y[0]).add(X, Y)
    spans, every = [slice(*span) for span in SPANS], LinearMap(slice(None), np.ones(D))
    expected = plain_evidence(X - X.mean(axis=0), Y - Y.mean(axis=0), SPANS)
    for rows in (RidgeRows(X, Y, np.ones(n)), RidgeRows(X, Y, np.ones(n), (), moments)):
        np.testing.assert_allclose(evidence_penalties(rows, every, spans), expected, rtol=1e-6)


def test_labels_are_likelier_under_evidence_penalties_than_under_equal_ones():
    X, Y, _ = numbers(60, seed=2)
    head = regressor(penalties="evidence").fit(X, Y)
    X = X * by_hand.scaled(X, SPANS, "shrunk", np.ones(60))
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    found = np.array(list(head.layer_penalties_.values())) / head.alpha_

    def best(penalties):
        """Highest likelihood over the strength, at the noise that suits it best."""
        values = []
        for log_alpha in np.linspace(-6, 8, 57):
            own = np.exp(log_alpha) * np.asarray(penalties)
            inside = by_hand.log_evidence(X, np.zeros_like(Y), SPANS, own, 1.0)
            total = 2 * (inside - by_hand.log_evidence(X, Y, SPANS, own, 1.0))
            noise = Y.size / total
            values.append(by_hand.log_evidence(X, Y, SPANS, own * noise, noise))
        return max(values)

    assert best(found) > best([1, 1, 1]) + 1
    for place in range(3):  # and no layer's penalty is far from the best one
        for times in (0.1, 10):
            moved = found.copy()
            moved[place] *= times
            assert best(found) > best(moved) - 0.05


def test_a_layer_of_noise_is_dropped():
    rng = np.random.default_rng(0)
    codes = np.arange(200) % 4
    X = np.hstack([rng.normal(size=(200, 6)) + 2 * np.eye(4, 6)[codes], rng.normal(size=(200, 60))])
    slices = {"signal": slice(0, 6), "noise": slice(6, 66)}
    found = LayerRidgeClassifier(slices).fit(X, codes)
    alike = LayerRidgeClassifier(slices, penalties="uniform").fit(X, codes)
    assert found.layer_penalties_["noise"] > 10 * found.layer_penalties_["signal"]
    assert found.layer_importance_["noise"] < 0.4 * alike.layer_importance_["noise"]
    assert found.loo_log_loss_ < alike.loo_log_loss_


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("penalties", ["uniform", "evidence"])
def test_importance_is_each_layers_share_of_the_degrees_of_freedom(shape, penalties):
    X, Y, weight = numbers(SHAPES[shape])
    head = regressor(penalties=penalties).fit(X, Y, sample_weight=weight)
    mapped = X * by_hand.scaled(X, SPANS, "shrunk", weight)
    mapped -= np.average(mapped, axis=0, weights=weight)
    gram = mapped.T @ (weight[:, None] * mapped)
    own = np.repeat(list(head.layer_penalties_.values()), [4, 3, 5])
    each = np.diag(np.linalg.solve(gram + np.diag(own), gram))
    expected = np.array([each[start:stop].sum() for start, stop in SPANS]) / each.sum()
    assert list(head.layer_importance_) == list(SLICES)
    np.testing.assert_allclose(list(head.layer_importance_.values()), expected, rtol=1e-6)
    assert sum(head.layer_importance_.values()) == pytest.approx(1)


# --- odd shapes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [40, 9])
def test_a_constant_column_is_as_good_as_none(n):
    X, Y, _ = numbers(n)
    X[:, 5] = 7.5
    with_it = regressor(alphas=[1.0], scaling="trace").fit(X, Y)
    slices = {"net/low": slice(0, 4), "net/mid": slice(4, 6), "net/high": slice(6, 11)}
    less = np.delete(X, 5, axis=1)
    without = LayerRidgeRegressor(slices, penalties=PENALTIES, alphas=[1.0], scaling="trace")
    without.fit(less, Y)
    assert (with_it.coef_[:, 5] == 0).all()
    np.testing.assert_allclose(with_it.predict(X), without.predict(less))
    np.testing.assert_allclose(with_it.loo_prediction_, without.loo_prediction_)


def test_only_constant_columns_predict_the_mean():
    head = LayerRidgeRegressor().fit(np.ones((6, 2)), np.arange(6.0))
    np.testing.assert_allclose(head.predict([[1.0, 1.0], [9.0, 9.0]]), 2.5)
    assert head.layer_importance_ == {"features": 0.0}
    head = LayerRidgeClassifier().fit(np.ones((300, 2)), ["elk", "owl", "owl"] * 100)
    np.testing.assert_allclose(head.predict_proba([[5.0, 5.0]]), [[1 / 3, 2 / 3]], atol=0.05)


def test_a_row_that_alone_holds_a_direction_gets_a_finite_prediction():
    X = np.vstack([np.zeros((9, 1)), [[1.0]]])
    head = LayerRidgeRegressor(alphas=[1e-9]).fit(X, np.r_[np.zeros(9), 1.0])
    assert np.isfinite(head.loo_prediction_).all()


def test_as_many_classes_as_rows_predict_and_have_nothing_to_be_judged_by():
    X, _ = animals(5)
    head = classifier().fit(X, np.arange(5))
    assert (head.loo_score_, head.loo_log_loss_) == (None, None)
    proba = head.predict_proba(X)
    assert proba.shape == (5, 5)
    assert np.isfinite(proba).all()
    assert head.predict(X).tolist() == [0, 1, 2, 3, 4]


def test_a_row_alone_in_its_class_is_fitted_but_not_judged():
    X, y = animals(31)
    y[30] = "yak"
    head = classifier(alphas=[1.0]).fit(X, y)
    rest = head.loo_proba_[np.arange(30), np.searchsorted(head.classes_, y[:30])]
    assert head.loo_log_loss_ == pytest.approx(-np.log(rest).mean())
    assert "yak" in head.classes_


def test_many_more_features_than_rows_are_no_trouble():
    rng = np.random.default_rng(0)
    y = np.repeat(["elk", "owl"], 15)
    X = rng.normal(size=(30, 900)) + 0.4 * (y == "owl")[:, None]
    slices = {"a": slice(0, 400), "b": slice(400, 900)}
    head = LayerRidgeClassifier(slices).fit(X, y)
    assert head.loo_score_ > 0.9
    assert head.score(X, y) == 1


# --- weights, groups, copies --------------------------------------------------------------------


def test_balanced_classes_weigh_as_scikit_learn_says():
    X, y = animals()
    few = np.r_[np.flatnonzero(y != "owl"), np.flatnonzero(y == "owl")[:5]]
    X, y = X[few], y[few]
    shares = {label: len(y) / 3 / (y == label).sum() for label in ("elk", "fox", "owl")}
    by_row = classifier().fit(X, y, sample_weight=[shares[label] for label in y])
    for asked in ("balanced", shares):
        head = classifier(class_weight=asked).fit(X, y)
        np.testing.assert_allclose(head.coef_, by_row.coef_)
        np.testing.assert_allclose(head.loo_proba_, by_row.loo_proba_)
        assert head.loo_log_loss_ == pytest.approx(by_row.loo_log_loss_)


def test_a_row_of_no_weight_changes_nothing():
    X, Y, weight = numbers(40)
    weight[::4] = 0
    kept = weight > 0
    ours = regressor(alphas=[1.0]).fit(X, Y, sample_weight=weight)
    theirs = regressor(alphas=[1.0]).fit(X[kept], Y[kept], sample_weight=weight[kept])
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-10)
    np.testing.assert_allclose(ours.loo_prediction_[kept], theirs.loo_prediction_)
    assert ours.loo_mse_ == pytest.approx(theirs.loo_mse_)


def test_rows_that_stand_twice_are_left_out_in_pairs_when_they_are_a_group():
    X, y = animals(30, apart=1)
    once = classifier(alphas=[1.0]).fit(X, y, sample_weight=np.full(30, 2.0))
    twice = classifier(alphas=[1.0]).fit(
        X.repeat(2, axis=0), y.repeat(2), groups=np.arange(30).repeat(2)
    )
    np.testing.assert_allclose(twice.coef_, once.coef_)
    np.testing.assert_allclose(twice.loo_proba_, once.loo_proba_.repeat(2, axis=0))


def test_copies_flatter_leave_one_out_unless_they_are_a_group():
    """Noise with every row twice: alone a row is told by its copy, in a group it is not."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 30)).repeat(2, axis=0), np.repeat(["elk", "owl"], 40)
    alone = LayerRidgeClassifier(alphas=[0.1]).fit(X, y)
    together = LayerRidgeClassifier(alphas=[0.1]).fit(X, y, groups=np.arange(80) // 2)
    assert alone.loo_log_loss_ < 0.5
    assert together.loo_log_loss_ > 0.65  # ln 2 = 0.693 is what a coin gets
    np.testing.assert_array_equal(alone.coef_, together.coef_)


def test_rows_without_a_group_leave_alone():
    X, Y, _ = numbers(40)
    missing = [None, "", float("nan"), f"only {0}"] * 10
    missing[3::4] = [f"only {row}" for row in range(10)]
    by_none, plain = regressor().fit(X, Y, groups=missing), regressor().fit(X, Y)
    np.testing.assert_array_equal(by_none.loo_prediction_, plain.loo_prediction_)


def test_folds_given_leave_together_fold_by_fold():
    X, Y, weight = numbers(40)
    folds = [(np.flatnonzero(np.arange(40) % 4 != k), np.arange(k, 40, 4)) for k in range(4)]
    head = regressor(alphas=[2.0], cv=folds).fit(X, Y, sample_weight=weight)
    mapped = X * by_hand.scaled(X, SPANS, "shrunk", weight)
    expected = by_hand.left_out(mapped, Y, weight, 2.0 * EACH, [test for _, test in folds])
    np.testing.assert_allclose(head.loo_prediction_, expected, atol=1e-8)
