"""Strength by inner folds, temperature, torch heads: against scikit-learn and plain numpy."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from pipeline.errors import InputError, OptionError
from pipeline.heads.discriminant import PooledDiscriminant
from pipeline.heads.inner import inner_rows
from pipeline.heads.layer_ridge import LayerRidgeClassifier, LayerRidgeRegressor
from pipeline.heads.several_labels import SeveralLabels
from pipeline.heads.temperature import (
    TemperatureClassifier,
    best_temperature,
    log_loss_at,
    softmax,
)
from pipeline.heads.torch_heads import TorchClassifier, TorchRegressor
from pipeline.heads.tuned import TunedClassifier, TunedRegressor


def points(n=120, width=6, classes=3, seed=0, noise=1.5):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    centres = np.random.default_rng(9).normal(size=(classes, width)) * 2
    X = centres[codes] + noise * rng.normal(size=(n, width))
    return X, np.array(["ant", "bee", "cat"])[codes]


@parametrize_with_checks(
    [
        LayerRidgeClassifier(),
        LayerRidgeRegressor(),
        PooledDiscriminant(),
        SeveralLabels(LogisticRegression()),
        TemperatureClassifier(RidgeClassifier()),
        TorchClassifier(max_epochs=5),
        TorchRegressor(8, lr=5e-2, max_epochs=5),
        TunedClassifier(LogisticRegression(warm_start=True), "C", (0.1, 1.0)),
        TunedRegressor(Ridge(), "alpha", (0.1, 1.0)),
    ]
)
def test_heads_are_what_scikit_learn_asks_for(estimator, check):
    check(estimator)


def test_the_strength_is_that_of_a_grid_search_over_the_same_folds():
    X, y = points()
    values = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    folds = inner_rows(y, None, 3, cv=None, random_state=0)
    ours = TunedClassifier(LogisticRegression(), "C", values, cv=folds).fit(X, y)
    grid = GridSearchCV(LogisticRegression(), {"C": values}, cv=folds, scoring="neg_log_loss")
    grid.fit(X, y)
    assert ours.best_value_ == grid.best_params_["C"]
    np.testing.assert_allclose(ours.losses_, -120 * grid.cv_results_["mean_test_score"], rtol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(X), grid.predict_proba(X))


def test_the_strength_of_a_number_has_the_least_squared_error():
    X, _ = points()
    y = X @ np.arange(6) + np.random.default_rng(1).normal(size=120)
    folds = inner_rows(y, None, 3, cv=None, random_state=0, is_class=False)
    ours = TunedRegressor(Ridge(), "alpha", (1e-3, 1.0, 1e3), cv=folds).fit(X, y)
    grid = GridSearchCV(
        Ridge(), {"alpha": [1e-3, 1.0, 1e3]}, cv=folds, scoring="neg_mean_squared_error"
    ).fit(X, y)
    assert ours.best_value_ == grid.best_params_["alpha"]
    np.testing.assert_allclose(ours.predict(X), grid.predict(X))


def test_copies_flatter_the_nearest_neighbour_unless_they_are_a_group():
    """Each row stands twice: one neighbour looks good as long as copies may part."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)).repeat(2, axis=0), rng.normal(size=60).repeat(2)
    head = TunedRegressor(KNeighborsRegressor(), "n_neighbors", (1, 40))
    assert head.fit(X, y).best_value_ == 1
    assert head.fit(X, y, groups=np.arange(120) // 2).best_value_ == 40


def test_inner_folds_keep_groups_apart_and_every_class_on_the_training_side():
    y = np.array(["a"] * 30 + ["b"] * 9 + ["c"])
    groups = np.arange(40) // 3
    for train, test in inner_rows(y, groups, 3, cv=None, random_state=0):
        assert not set(groups[train]) & set(groups[test])
        assert set(y[test]) <= set(y[train])


def test_a_class_that_only_one_side_of_a_given_fold_has_is_not_asked_about():
    X, y = points(30)
    fold = (np.flatnonzero(y != "cat"), np.flatnonzero(y == "cat")[:2])
    mixed = (np.flatnonzero(y != "cat")[3:], np.r_[np.flatnonzero(y == "cat")[:1], [0, 1]])
    head = TemperatureClassifier(RidgeClassifier(), cv=[fold, mixed]).fit(X, y)
    assert np.isfinite(head.temperature_)
    assert inner_rows(y, None, 3, cv=[fold], random_state=0) == []


def test_many_rows_are_compared_on_in_part_but_all_are_fitted():
    rng = np.random.default_rng(0)
    y = np.r_[rng.integers(0, 2, 9_000), [2, 2, 2]]
    pairs = inner_rows(y, None, 3, cv=None, random_state=0)
    looked_at = np.unique(np.concatenate([np.concatenate(pair) for pair in pairs]))
    assert 4_000 <= len(looked_at) <= 4_004
    assert (y[looked_at] == 2).sum() >= 2


def test_the_temperature_has_the_lowest_log_loss():
    rng = np.random.default_rng(0)
    scores = 5 * rng.normal(size=(4000, 3))
    truth = np.array([rng.choice(3, p=row) for row in softmax(scores / 2.5)])
    found = best_temperature(scores, truth)
    plain = minimize_scalar(lambda t: log_loss_at(t, scores, truth), bounds=(0.1, 10)).x
    assert found == pytest.approx(plain, rel=5e-3)
    assert found == pytest.approx(2.5, rel=0.1)
    whole = rng.integers(0, 3, 4000)
    weighted = best_temperature(scores, truth, whole)
    repeated = best_temperature(scores.repeat(whole, axis=0), truth.repeat(whole))
    assert weighted == pytest.approx(repeated, rel=1e-9)


def test_the_temperature_is_scikit_learns():
    X, y = points(600, noise=4)
    fitted = RidgeClassifier().fit(X[:300], y[:300])
    theirs = CalibratedClassifierCV(FrozenEstimator(fitted), method="temperature")
    theirs.fit(X[300:], y[300:])
    codes = np.searchsorted(fitted.classes_, y[300:])
    scores = fitted.decision_function(X[300:])
    ours = softmax(scores / best_temperature(scores, codes))
    np.testing.assert_allclose(ours, theirs.predict_proba(X[300:]), atol=0.005)


def test_scores_that_say_nothing_give_even_odds_and_perfect_ones_stay_short_of_certainty():
    scores, truth = np.array([[1.0, -1.0], [-1.0, 1.0]] * 20), np.array([0, 1] * 20)
    right, wrong = (best_temperature(s, truth) for s in (scores, -scores))
    assert 0.95 < softmax(scores / right).max() < 0.99
    np.testing.assert_allclose(softmax(-scores / wrong), 0.5, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_temperature_of_inner_folds_lowers_the_log_loss_of_new_rows(classes):
    X, y = points(150, width=60, classes=classes, noise=4)
    new, truth = points(600, width=60, classes=classes, seed=4, noise=4)
    head = TemperatureClassifier(RidgeClassifier(alpha=1e-3)).fit(X, y)
    raw = head.estimator_.decision_function(new)
    raw = np.stack([-raw, raw], axis=1) if raw.ndim == 1 else raw
    calibrated = log_loss(truth, head.predict_proba(new))
    assert calibrated < 0.8 * log_loss(truth, softmax(raw))
    best = min(log_loss(truth, softmax(raw / t)) for t in np.geomspace(0.02, 2, 40))
    assert calibrated < 1.2 * best


def test_the_discriminant_is_scikit_learns_at_the_same_shrinkage():
    X, y = points()
    X = X @ np.random.default_rng(0).normal(size=(6, 6))
    ours = PooledDiscriminant().fit(X, y)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=ours.shrinkage_).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-4)
    assert 0 < ours.shrinkage_ < 1


def test_balanced_priors_are_equal():
    X, y = points()
    few = np.r_[np.flatnonzero(y != "cat"), np.flatnonzero(y == "cat")[:5]]
    ours = PooledDiscriminant(class_weight="balanced").fit(X[few], y[few])
    theirs = LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage=ours.shrinkage_, priors=[1 / 3] * 3
    ).fit(X[few], y[few])
    # scikit-learn weighs the covariances by the priors too: only the offsets are compared
    plain = PooledDiscriminant().fit(X[few], y[few])
    np.testing.assert_array_equal(ours.coef_, plain.coef_)
    shift = plain.intercept_ - ours.intercept_
    np.testing.assert_allclose(shift, np.log(np.array([40, 40, 5]) / 85 * 3))
    assert (ours.predict(X) == theirs.predict(X)).mean() > 0.95


def test_the_linear_torch_head_comes_to_what_logistic_regression_does():
    X, y = points(600)
    new, truth = points(600, seed=3)
    torch_loss = log_loss(truth, TorchClassifier().fit(X, y).predict_proba(new))
    logistic_loss = log_loss(truth, LogisticRegression().fit(X, y).predict_proba(new))
    assert torch_loss < 1.6 * logistic_loss


def test_hidden_units_bend_the_border():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(400, 2)).astype(np.float32)
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    bent, straight = (TorchClassifier(hidden, lr=0.01) for hidden in (32, 0))
    assert bent.fit(X, y).score(X, y) > 0.9
    assert straight.fit(X, y).score(X, y) < 0.7


def test_torch_heads_predict_as_their_network_does_without_torch_objects():
    import torch

    X, y = points(60)
    head = TorchClassifier(8, max_epochs=5).fit(X.astype(np.float32), y)
    assert not any(isinstance(value, torch.Tensor) for value in vars(head).values())
    hidden = np.maximum(X @ head.coefs_[0] + head.intercepts_[0], 0)
    expected = softmax(hidden @ head.coefs_[1] + head.intercepts_[1])
    np.testing.assert_allclose(head.predict_proba(X.astype(np.float32)), expected, rtol=1e-3)


def test_torch_heads_do_not_care_for_the_scale_of_their_rows():
    X, y = points()
    plain = TorchClassifier(max_epochs=5).fit(X, y)
    moved = TorchClassifier(max_epochs=5).fit(1e3 * X + 500, y)
    np.testing.assert_allclose(
        plain.predict_proba(X), moved.predict_proba(1e3 * X + 500), rtol=1e-4, atol=1e-6
    )


def test_torch_heads_leave_the_global_generator_alone():
    import torch

    X, y = points(30)
    before = torch.random.get_rng_state()
    TorchClassifier(4, max_epochs=2).fit(X, y)
    assert torch.equal(before, torch.random.get_rng_state())


def test_labels_are_fitted_one_by_one_with_their_weights_and_groups():
    X, _ = points()
    Y = (X[:, :2] > 0).astype(int)
    weight = np.r_[np.ones(100), np.zeros(20)]
    one = TunedClassifier(LogisticRegression(), "C", (0.1, 1.0))
    several = SeveralLabels(one).fit(X, Y, sample_weight=weight, groups=np.arange(120) // 2)
    for label in range(2):
        alone = TunedClassifier(LogisticRegression(), "C", (0.1, 1.0))
        alone.fit(X, Y[:, label], sample_weight=weight, groups=np.arange(120) // 2)
        np.testing.assert_array_equal(
            several.predict_proba(X)[:, label], alone.predict_proba(X)[:, 1]
        )


@pytest.mark.parametrize(
    ("act", "error", "sentence"),
    [
        (
            lambda X, y: TunedClassifier(KNeighborsClassifier(), "n_neighbors", (1,)).fit(
                X, y, sample_weight=np.ones(len(y))
            ),
            OptionError,
            "KNeighborsClassifier cannot weigh rows, but sample_weight was given. Leave it out, "
            "or take a head that can: logistic,",
        ),
        (
            lambda X, y: SeveralLabels(LogisticRegression()).fit(X, np.full((len(X), 2), 3)),
            InputError,
            "must hold 0 or 1 in a column for each label",
        ),
        (
            lambda X, y: PooledDiscriminant().fit(X, np.repeat("ant", len(y))),
            InputError,
            "y has only one class, 'ant': at least two are needed. Label rows of another class,",
        ),
        (
            lambda X, y: TorchClassifier(lr=1e30).fit(X, y),
            OptionError,
            "training diverged: the loss is",
        ),
    ],
)
def test_what_is_wrong_is_said(act, error, sentence):
    with pytest.raises(error) as caught:
        act(*points(60))
    assert sentence in str(caught.value)
