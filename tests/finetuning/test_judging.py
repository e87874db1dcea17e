"""Judging: temperatures, what a gain is worth, and how far to go."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import ttest_rel

from pipeline.finetuning.judging import Judge, choose_weights
from pipeline.finetuning.objectives import Objective

RNG = np.random.default_rng(3)
N = 40


def classes(weight=None, n=N):
    goal = torch.from_numpy(np.arange(n) % 3)
    weight = torch.ones(n) if weight is None else torch.as_tensor(weight)
    return Objective("kind", "class", goal, weight.float(), float(np.log(3)))


def judge_of(objectives, n):
    """Every row for itself."""
    return Judge(objectives, torch.arange(n), np.arange(n))


def numbers(n=N):
    goal = torch.from_numpy(RNG.normal(size=n).astype(np.float32))
    return Objective("size", "number", goal, torch.ones(n), 1.0, mean=5.0, spread=2.0)


def scores_of(rows, sharpness=3.0, noise=2.0):
    goal = np.eye(3)[rows % 3]
    return torch.from_numpy(sharpness * goal + RNG.normal(0, noise, (len(rows), 3)))


def cross_entropies(scores, goal):
    return -log_softmax(scores, axis=1)[np.arange(len(goal)), goal]


def softened_by_hand(scores, goal, weight):
    """Scores over the temperature that suits the other half best, by search."""
    found = np.empty_like(scores)
    for own, other in ((EVEN, ODD), (ODD, EVEN)):
        found[own] = scores[own] / best_by_hand(scores[other], goal[other], weight[other])
    return found


def best_by_hand(scores, goal, weight):
    best = minimize_scalar(
        lambda log: smoothed(np.exp(log), scores, goal, weight),
        bounds=(-5, 5), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    return np.exp(best.x)


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 5.0])
def test_losses_are_each_rows_share_of_the_mean_softened_where_that_lowers_them(sharpness):
    weight = RNG.uniform(0, 2, N).astype(np.float32)
    weight[[4, 9]] = 0
    rows = np.arange(3, 33)
    judge = Judge(
        [classes(weight), number := numbers()], torch.from_numpy(rows), np.arange(len(rows))
    )
    scores, guesses = scores_of(rows) * sharpness, torch.from_numpy(RNG.normal(size=(30, 1)))
    found = judge.losses([scores, guesses])
    shares = weight[rows] / weight[rows].sum()
    both = [
        cross_entropies(own, rows % 3) * shares / np.log(3)
        for own in (scores.numpy(), softened_by_hand(scores.numpy(), rows % 3, weight[rows]))
    ]
    squares = (guesses.numpy()[:, 0] - number.goal[rows].numpy()) ** 2 / 30
    np.testing.assert_allclose(found, (min(both, key=np.sum) + squares) / 2, rtol=1e-4)


def test_scores_without_a_mistake_are_left_as_they_are():
    """A temperature of few rows would soften them for nothing."""
    scores = torch.eye(3)[torch.arange(12) % 3] * 8.0
    judge = judge_of([kind := classes(n=12)], 12)
    by_hand = cross_entropies(scores.numpy(), np.arange(12) % 3) / np.log(3) / 12
    np.testing.assert_allclose(judge.losses([scores]), by_hand, rtol=1e-4)
    assert judge.temperature(kind, scores) == 1.0


EVEN, ODD = slice(0, None, 2), slice(1, None, 2)


def smoothed(temperature, scores, goal, weight):
    """Loss with the softened goals of Platt, by hand."""
    soft = 1 / (weight.sum() + 2)
    target = np.eye(3)[goal] * (1 - soft) + soft / 3
    return -(weight[:, None] * target * log_softmax(scores / temperature, axis=1)).sum()


def test_the_temperature_is_that_of_the_lowest_loss():
    weight = RNG.uniform(0.5, 2, N).astype(np.float32)
    rows = np.arange(N)
    judge = judge_of([classes(weight)], N)
    scores = scores_of(rows) * 5
    found = judge.temperature(judge.objectives[0], scores)
    assert found == pytest.approx(best_by_hand(scores.numpy(), rows % 3, weight), rel=1e-4)


def test_what_has_no_classes_has_no_temperature():
    judge = judge_of([number := numbers()], N)
    assert judge.temperature(number, torch.zeros(N, 1)) == 1.0


def test_accuracy_is_the_mean_over_the_tasks():
    judge = judge_of([classes(), number := numbers()], N)
    perfect = torch.eye(3)[torch.arange(N) % 3]
    half = torch.where(torch.arange(N)[:, None] < 20, perfect, -perfect)
    mean = torch.full((N, 1), float(number.goal.mean()))
    assert judge.accuracy([half, mean]) == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("n", [4, N])
def test_better_is_what_a_paired_t_test_calls_better(n):
    for mean in (-1.0, 0.0, 0.1, 0.3, 1.0, 3.0):
        before = RNG.uniform(0, 50, n)  # rows differ by far more than the gains do
        after = before - RNG.normal(mean, size=n)
        chance = ttest_rel(before, after, alternative="greater").pvalue
        assert judge_of([], n).better(before, after) is bool(chance < 0.025)


def test_rows_of_one_family_count_as_one():
    """Ten copies of two rows prove no more than two rows do."""
    before, gains = RNG.uniform(1, 2, 20), np.repeat([0.5, 0.2], 10)
    families = np.repeat([0, 1], 10)
    assert judge_of([], 20).better(before, before - gains)
    assert not Judge([], torch.arange(20), families).better(before, before - gains)
    assert Judge([], torch.arange(20), families).better(before, before - 0.1)


def test_no_gain_at_all_and_a_single_row_are_not_better():
    same = RNG.uniform(size=N)
    assert not judge_of([], N).better(same, same)
    assert not judge_of([], 1).better(np.array([9.0]), np.array([1.0]))
    assert judge_of([], 2).better(np.array([2.0, 2.0]), np.array([1.0, 1.0]))


def along(best, seen=None):
    """Scores of a network that is best at one share of the way."""
    truth = torch.eye(3)[torch.arange(N) % 3].double()

    def scores(state):
        share = float(state["w"])
        if seen is not None:
            seen.append(share)
        flaw = abs(share - best)
        wrong = torch.arange(N)[:, None] < round(40 * flaw)
        return [torch.where(wrong, -truth, truth) * 5]

    return scores


@pytest.mark.parametrize("best", [0.1, 0.4, 1.0])
def test_the_weights_go_as_far_as_the_validation_rows_like(best):
    start, end = {"w": torch.tensor([0.0])}, {"w": torch.tensor([1.0])}
    seen = []
    found = choose_weights(start, end, along(best, seen), judge_of([classes()], N))
    assert found.share == best
    assert float(found.state["w"]) == pytest.approx(best)
    assert torch.equal(found.scores[0], along(best)(found.state)[0])
    np.testing.assert_allclose(sorted(seen), np.arange(1, 11) / 10, rtol=1e-6)


def test_of_equally_good_weights_those_that_went_furthest_are_taken():
    start, end = {"w": torch.tensor([2.0])}, {"w": torch.tensor([3.0])}
    found = choose_weights(start, end, lambda state: [torch.zeros(N, 3)], judge_of([classes()], N))
    assert found.share == 1.0
    assert torch.equal(found.state["w"], end["w"])


def test_figures_are_in_the_units_of_the_targets():
    rows = np.arange(N)
    judge = judge_of([classes(), number := numbers()], N)
    scores, guesses = scores_of(rows), torch.from_numpy(RNG.normal(size=(N, 1)))
    found = judge.figures([scores, guesses])
    softened = softened_by_hand(scores.numpy(), rows % 3, np.ones(N))
    both = [cross_entropies(one, rows % 3) for one in (scores.numpy(), softened)]
    own = min(both, key=np.sum)
    right = (scores.numpy().argmax(1) == rows % 3).mean()
    assert found["kind"] == {
        "accuracy": pytest.approx(right),
        "log_loss": pytest.approx(own.mean(), rel=1e-4),
        "log_loss_se": pytest.approx(own.std(ddof=1) / np.sqrt(N), rel=1e-3),
    }
    truth, guess = (np.ravel(one) * 2.0 + 5.0 for one in (number.goal.numpy(), guesses.numpy()))
    squares = (truth - guess) ** 2
    assert found["size"] == {
        "r2": pytest.approx(1 - squares.mean() / truth.var(), rel=1e-4),
        "mse": pytest.approx(squares.mean(), rel=1e-5),
        "mse_se": pytest.approx(squares.std(ddof=1) / np.sqrt(N), rel=1e-5),
    }
