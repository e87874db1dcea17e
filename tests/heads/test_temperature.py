"""The temperature of the lowest log-loss, against scipy's minimum."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from pipeline.heads.temperature import best_temperature, log_loss_at


def soft_loss(sharpness, scores, truth, weight) -> float:
    """Log-loss in which all classes share what two rows more would have, as Platt (1999)."""
    classes = scores.shape[1]
    softness = 1 / (weight.sum() + 2)
    soft = (1 - softness) * np.eye(classes)[truth] + softness / classes
    logits = np.asarray(scores, np.float64) * np.exp(sharpness)
    return -weight @ (soft * log_softmax(logits, axis=1)).sum(axis=1)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 50.0])
@pytest.mark.parametrize("classes", [2, 3, 40])
def test_it_is_the_minimum_whatever_scale_and_number_of_classes(classes, scale, kind):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, classes, 200)
    scores = (scale * (rng.normal(size=(200, classes)) + 2 * np.eye(classes)[truth])).astype(kind)
    weight = rng.uniform(0, 3, 200) * (np.arange(200) % 4 > 0)
    found = best_temperature(scores, truth, weight)
    oracle = minimize_scalar(
        soft_loss, (-np.log(scale) - 2, -np.log(scale) + 2), args=(scores, truth, weight), tol=1e-10
    ).x
    assert found == pytest.approx(np.exp(-oracle), rel=1e-4)


def test_temperature_scales_with_the_scores_and_ignores_what_all_classes_share():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 100)
    scores = rng.normal(size=(100, 4)) + np.eye(4)[truth]
    plain = best_temperature(scores, truth)
    assert best_temperature(7 * scores, truth) == pytest.approx(7 * plain)
    moved = scores + 1000 * rng.normal(size=(100, 1))
    assert best_temperature(moved, truth) == pytest.approx(plain)


def test_other_temperatures_lose_more():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 5000)
    scores = rng.normal(size=(5000, 3)) + np.eye(3)[truth]
    best = best_temperature(scores, truth)
    for other in (0.5, 0.9, 1.1, 2.0):
        assert log_loss_at(best * other, scores, truth) > log_loss_at(best, scores, truth)


@pytest.mark.parametrize(
    "scores", [np.zeros((6, 3)), np.full((6, 3), 5.0), -np.eye(3)[[0, 1, 2] * 2]]
)
def test_scores_that_say_nothing_or_the_contrary_give_even_odds(scores):
    truth = np.array([0, 1, 2] * 2)
    temperature = best_temperature(scores, truth)
    assert np.isfinite(temperature)
    assert log_loss_at(temperature, scores, truth) == pytest.approx(np.log(3), abs=1e-4)


def test_rows_of_no_weight_at_all_give_a_temperature_nonetheless():
    assert np.isfinite(best_temperature(np.eye(3), np.arange(3), np.zeros(3)))
