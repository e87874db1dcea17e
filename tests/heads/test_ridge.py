"""Ridge by exact leave-one-out, against refitting without the rows and against scikit-learn."""

import numpy as np
import pytest
from pipeline.heads.ridge import LooRidgeClassifier, LooRidgeRegressor
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold

ALPHAS = (0.01, 1.0, 30.0)
SHAPES = {"tall": (40, 6), "wide": (20, 33)}
"""Fewer features than rows are solved in their own space, more in that of the rows."""


def problem(shape: str, seed: int = 0):
    n, d = SHAPES[shape]
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * np.linspace(0.2, 3, d) + 5
    number = 5 * X[:, -1] - 4 * X[:, -2] + rng.normal(size=n)
    codes = np.argsort(np.argsort(number)) * 3 // n
    return X, number, np.array(["elk", "fox", "owl"])[codes], rng.uniform(0.2, 3, n)


def without(X, Y, weight, gone, alpha) -> np.ndarray:
    """Scores of the rows that are gone, from a plain fit without them."""
    kept = np.setdiff1d(np.arange(len(X)), gone)
    fitted = Ridge(alpha, solver="cholesky").fit(X[kept], Y[kept], sample_weight=weight[kept])
    return fitted.predict(X[gone])


def left_out(X, Y, weight, families, alpha) -> np.ndarray:
    found = np.empty_like(Y)
    for family in families:
        found[family] = without(X, Y, weight, family, alpha)
    return found


def families_of(n: int, grouped: bool) -> list[np.ndarray]:
    size = 3 if grouped else 1
    return [np.arange(start, min(start + size, n)) for start in range(0, n, size)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_loss_of_a_number_is_that_of_refitting_without_the_row_or_its_group(
    shape, weighted, grouped
):
    X, y, _, weight = problem(shape)
    weight = weight if weighted else np.ones(len(X))
    families = families_of(len(X), grouped)
    groups = np.concatenate([np.full(len(f), place) for place, f in enumerate(families)])
    head = LooRidgeRegressor(ALPHAS).fit(
        X, y, sample_weight=weight if weighted else None, groups=groups if grouped else None
    )
    losses = [
        np.average((left_out(X, y, weight, families, alpha) - y) ** 2, weights=weight)
        for alpha in ALPHAS
    ]
    np.testing.assert_allclose(head.losses_, losses, rtol=1e-6)
    assert head.alpha_ == ALPHAS[int(np.argmin(losses))]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_temperature_and_penalty_of_a_class_have_the_lowest_left_out_log_loss(
    shape, weighted, grouped
):
    X, _, y, weight = problem(shape)
    weight = weight if weighted else np.ones(len(X))
    families = families_of(len(X), grouped)
    groups = [f"patient {row // 3}" for row in range(len(X))]
    head = LooRidgeClassifier(ALPHAS).fit(
        X, y, sample_weight=weight if weighted else None, groups=groups if grouped else None
    )
    classes = sorted(set(y))
    Y = (y[:, None] == np.array(classes)).astype(float)
    found = []
    for alpha in ALPHAS:
        scores = left_out(X, Y, weight, families, alpha)

        softness = 1 / (weight.sum() + 2)  # Platt (1999): no probability of 0 or 1 is asked for
        soft = (1 - softness) * Y + softness / len(classes)

        def loss(log_t, scores=scores, soft=soft):
            return -weight @ (soft * log_softmax(scores / np.exp(log_t), axis=1)).sum(axis=1)

        best = np.exp(minimize_scalar(loss, bounds=(-8, 8), method="bounded").x)
        proba = softmax(scores / best, axis=1)
        found.append((log_loss(y, proba, labels=classes, sample_weight=weight), best))
    np.testing.assert_allclose(head.losses_, [loss for loss, _ in found], rtol=1e-5)
    loss, temperature = min(found)
    assert head.temperature_ == pytest.approx(temperature, rel=1e-3)
    assert head.alpha_ == ALPHAS[[one[0] for one in found].index(loss)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_coefficients_are_those_of_scikit_learn(shape, weighted):
    X, y, labels, weight = problem(shape)
    weight = weight if weighted else None
    head = LooRidgeRegressor([3.0]).fit(X, y, sample_weight=weight)
    oracle = Ridge(3.0, solver="cholesky").fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(head.coef_[:, 0], oracle.coef_, atol=1e-9)
    np.testing.assert_allclose(head.intercept_, oracle.intercept_, atol=1e-8)
    np.testing.assert_allclose(head.predict(X), oracle.predict(X), atol=1e-8)

    head = LooRidgeClassifier([3.0]).fit(X, labels, sample_weight=weight)
    Y = (labels[:, None] == head.classes_).astype(float)
    oracle = Ridge(3.0, solver="cholesky").fit(X, Y, sample_weight=weight)
    np.testing.assert_allclose(head.coef_, oracle.coef_.T, atol=1e-9)
    np.testing.assert_array_equal(head.predict(X), head.classes_[oracle.predict(X).argmax(axis=1)])
    np.testing.assert_allclose(
        head.predict_proba(X), softmax(oracle.predict(X) / head.temperature_, axis=1), atol=1e-8
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_scikit_learns_ridge_cv_picks_the_same_penalty_for_a_number(shape, seed):
    X, y, _, _ = problem(shape, seed)
    alphas = np.logspace(-2, 4, 9)
    head = LooRidgeRegressor(alphas).fit(X, y)
    oracle = RidgeCV(alphas, store_cv_results=True, scoring=None).fit(X, y)
    assert head.alpha_ == oracle.alpha_
    np.testing.assert_allclose(head.losses_, oracle.cv_results_.mean(axis=0), rtol=1e-6)


def test_balanced_classes_weigh_as_scikit_learn_says():
    X, _, y, _ = problem("tall")
    few = np.concatenate([np.flatnonzero(y == "owl")[:3], np.flatnonzero(y != "owl")])
    X, y = X[few], y[few]
    counts = {label: (y == label).sum() for label in set(y)}
    weight = np.array([len(y) / (3 * counts[label]) for label in y])
    balanced = LooRidgeClassifier(ALPHAS, class_weight="balanced").fit(X, y)
    weighted = LooRidgeClassifier(ALPHAS).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(balanced.coef_, weighted.coef_)
    assert balanced.temperature_ == pytest.approx(weighted.temperature_)


def test_a_row_of_no_weight_changes_nothing():
    X, y, labels, weight = problem("tall")
    weight[::4] = 0
    kept = weight > 0
    for head, goal in ((LooRidgeRegressor(ALPHAS), y), (LooRidgeClassifier(ALPHAS), labels)):
        ours = head.fit(X, goal, sample_weight=weight)
        losses, coef = ours.losses_, ours.coef_
        theirs = head.fit(X[kept], goal[kept], sample_weight=weight[kept])
        np.testing.assert_allclose(losses, theirs.losses_)
        np.testing.assert_allclose(coef, theirs.coef_, atol=1e-10)


def test_copies_flatter_leave_one_out_unless_they_are_a_group():
    """Noise with every row twice: alone a row is told by its copy, in a group it is not."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 30)), np.repeat(["elk", "owl"], 20)
    X2, y2, groups = np.repeat(X, 2, axis=0), np.repeat(y, 2), np.repeat(np.arange(40), 2)
    alone = LooRidgeClassifier([0.1]).fit(X2, y2)
    together = LooRidgeClassifier([0.1]).fit(X2, y2, groups=groups)
    assert alone.losses_[0] < 0.5
    assert together.losses_[0] > 0.65  # ln 2 = 0.693 is what a coin gets
    np.testing.assert_array_equal(alone.coef_, together.coef_)


def test_missing_groups_leave_alone():
    X, y, _, _ = problem("tall")
    by_none = LooRidgeRegressor(ALPHAS).fit(X, y, groups=[None, ""] * (len(X) // 2))
    np.testing.assert_allclose(by_none.losses_, LooRidgeRegressor(ALPHAS).fit(X, y).losses_)


def test_folds_given_leave_together_fold_by_fold():
    X, y, _, _ = problem("tall")
    folds = list(GroupKFold(4).split(X, y, np.arange(len(X)) % 4))
    head = LooRidgeRegressor(ALPHAS, cv=folds).fit(X, y)
    families, weight = [test for _, test in folds], np.ones(len(X))
    losses = [((left_out(X, y, weight, families, a) - y) ** 2).mean() for a in ALPHAS]
    np.testing.assert_allclose(head.losses_, losses, rtol=1e-6)


def test_many_rows_are_looked_at_in_part(monkeypatch):
    monkeypatch.setattr("pipeline.heads.ridge._MOST_ROWS", 25)
    X, y, _, _ = problem("tall")
    whole = {alpha: left_out(X, y, np.ones(40), families_of(40, False), alpha) for alpha in ALPHAS}
    groups = np.arange(40) // 3
    for extra in ({}, {"groups": groups}):
        head = LooRidgeRegressor([1.0], random_state=3).fit(X, y, **extra)
        again = LooRidgeRegressor([1.0], random_state=3).fit(X, y, **extra)
        other = LooRidgeRegressor([1.0], random_state=4).fit(X, y, **extra)
        assert head.losses_ == again.losses_ != other.losses_
        np.testing.assert_array_equal(head.coef_, other.coef_)
    errors = (whole[1.0] - y) ** 2
    assert errors.min() < LooRidgeRegressor([1.0]).fit(X, y).losses_[0] < errors.max()


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="y has only one class, 'elk': at least two are needed"):
        LooRidgeClassifier().fit(np.eye(3), ["elk"] * 3)


def test_one_number_and_constant_features_do_no_harm():
    head = LooRidgeRegressor().fit(np.ones((4, 2)), np.arange(4.0))
    np.testing.assert_allclose(head.predict([[1.0, 1.0], [9.0, 9.0]]), 1.5)
    assert np.isfinite(LooRidgeRegressor().fit([[1.0, 2.0]], [3.0]).losses_).all()
