"""Stacking and judging: weights against scipy, losses against scikit-learn."""

import numpy as np
import pytest
from scipy.optimize import minimize, nnls
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score

from pipeline.heads.judging import ClassJudge, NumberJudge, error_of, mean_of
from pipeline.heads.stacking import stack_weights


def members(n: int = 300, classes: int = 4, seed: int = 0):
    """Two members that each know a part of the truth, and one that knows nothing."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, classes, n)
    truth = np.eye(classes)[codes]
    noise = [rng.normal(size=(n, classes)) for _ in range(3)]
    return [0.6 * truth + 0.3 * noise[0], 0.9 * truth + 0.6 * noise[1], noise[2]], codes, rng


def soft_loss(weights, scores, judge) -> float:
    """Log-loss as for one temperature: the true class counts a little less than 1."""
    softness = 1 / (judge.weight.sum() + 2)
    classes = scores[0].shape[1]
    soft = (1 - softness) * np.eye(classes)[judge.codes] + softness / classes
    logits = sum(weight * own for weight, own in zip(weights, scores, strict=True))
    return -(judge.weight @ (soft * log_softmax(logits, axis=1)).sum(axis=1)) / judge.weight.sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_class_weights_are_those_of_the_lowest_log_loss(classes, weighted):
    scores, codes, rng = members(classes=classes)
    weight = rng.uniform(0, 2, 300) * (np.arange(300) % 5 > 0) if weighted else np.ones(300)
    judge = ClassJudge(codes, weight)
    found = stack_weights(scores, judge)
    oracle = minimize(
        soft_loss, np.ones(3), (scores, judge), method="SLSQP", bounds=[(0, None)] * 3,
        options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    assert (found >= 0).all()
    assert soft_loss(found, scores, judge) <= oracle.fun + 1e-7
    np.testing.assert_allclose(found, oracle.x, rtol=0.02, atol=0.01)


def test_the_stack_loses_less_than_each_member_at_its_best_temperature():
    scores, codes, _ = members()
    judge = ClassJudge(codes, np.ones(300))
    weights = stack_weights(scores, judge)
    stacked = sum(weight * own for weight, own in zip(weights, scores, strict=True))
    alone = [judge.verdict(own).loss for own in scores]
    assert judge.verdict(stacked).loss < min(alone) - 0.01
    assert weights[2] < 0.1 * weights[:2].min()


def test_a_member_that_points_the_wrong_way_gets_nothing():
    scores, codes, _ = members()
    weights = stack_weights([scores[0], -scores[1]], ClassJudge(codes, np.ones(300)))
    assert weights[0] > 0
    assert weights[1] == 0


def test_number_weights_are_least_squares_that_are_not_negative():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(200, 2))
    own = [truth + rng.normal(size=(200, 2)), truth + rng.normal(size=(200, 2)), -truth]
    weight = rng.uniform(0, 2, 200)
    found = stack_weights(own, NumberJudge(truth, weight))
    root = np.sqrt(np.repeat(weight, 2))
    columns = np.stack([member.ravel() for member in own], axis=1)
    expected, _ = nnls(root[:, None] * columns, root * truth.ravel())
    np.testing.assert_allclose(found, expected)
    assert found[2] == 0

    def loss(weights):
        return weight @ ((columns @ weights - truth.ravel()) ** 2).reshape(200, 2).sum(axis=1)

    assert all(loss(found) < loss(np.eye(3)[k]) for k in range(3))


def test_nothing_to_judge_by_gives_no_weight():
    scores, codes, _ = members()
    assert stack_weights(scores, ClassJudge(codes, np.zeros(300))).tolist() == [1 / 3] * 3


@pytest.mark.parametrize("weighted", [False, True])
def test_figures_of_classes_are_scikit_learns(weighted):
    scores, codes, rng = members()
    weight = rng.uniform(0, 2, 300) if weighted else np.ones(300)
    judge = ClassJudge(codes, weight)
    verdict = judge.verdict(scores[1])
    proba = softmax(scores[1] / verdict.temperature, axis=1)
    figures = judge.figures(verdict, scores[1])
    assert figures["log_loss"] == verdict.loss
    assert verdict.loss == pytest.approx(log_loss(codes, proba, sample_weight=weight))
    right = accuracy_score(codes, scores[1].argmax(axis=1), sample_weight=weight)
    assert figures["accuracy"] == pytest.approx(right)
    if not weighted:
        spread = verdict.losses.std(ddof=1) / np.sqrt(300)
        assert figures["log_loss_se"] == pytest.approx(spread)
    for hotter in (0.8, 1.25):
        assert judge.verdict(scores[1], verdict.temperature * hotter).loss > verdict.loss


@pytest.mark.parametrize("weighted", [False, True])
def test_figures_of_numbers_are_scikit_learns(weighted):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(50, 1))
    shown, weight = truth + rng.normal(size=(50, 1)), rng.uniform(0, 2, 50)
    weight = weight if weighted else np.ones(50)
    judge = NumberJudge(truth, weight)
    figures = judge.figures(judge.verdict(shown), shown)
    assert figures["r2"] == pytest.approx(r2_score(truth, shown, sample_weight=weight))
    assert figures["mse"] == pytest.approx(mean_squared_error(truth, shown, sample_weight=weight))
    part = judge.subset(np.arange(10))
    assert part.verdict(shown[:10]).loss == pytest.approx(
        mean_squared_error(truth[:10], shown[:10], sample_weight=weight[:10])
    )


def test_the_error_of_a_weighted_mean_is_its_spread_over_repeated_draws():
    rng = np.random.default_rng(0)
    weight = rng.uniform(0.2, 2, 40)
    draws = rng.normal(size=(4000, 40))
    means = [mean_of(values, weight) for values in draws]
    errors = [error_of(values, weight) for values in draws]
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.05)


def test_one_row_has_no_error_and_none_has_no_mean():
    one = np.array([0.0, 3.0, 0.0])
    assert error_of(np.arange(3.0), one) is None
    assert mean_of(np.arange(3.0), one) == 1
    assert np.isnan(mean_of(np.arange(3.0), np.zeros(3)))
    judge = ClassJudge(np.array([0, 1]), np.zeros(2))
    figures = judge.figures(judge.verdict(np.eye(2)), np.eye(2))
    assert figures == {"accuracy": None, "log_loss": None, "log_loss_se": None}
    same = NumberJudge(np.ones((3, 1)), np.ones(3))
    assert same.figures(same.verdict(np.zeros((3, 1))), np.zeros((3, 1)))["r2"] is None
