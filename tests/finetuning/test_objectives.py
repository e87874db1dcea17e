"""Targets as losses: what each row costs, by numpy, and which rows count."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax

from pipeline.finetuning.objectives import Objective
from pipeline.heads import Folded
from pipeline.samples import Target

RNG = np.random.default_rng(0)


def head(classes, kind="class"):
    width = 1 if classes is None else len(classes)
    names = None if classes is None else np.array(classes)
    return Folded(np.zeros((width, 2)), np.zeros(width), names, kind)


def task_of(values, classes=None, kind="class", train=None, weight=None):
    target = Target.decide("y", values, kind)
    train = np.arange(len(target)) if train is None else np.asarray(train)
    return Objective.of(target, head(classes, kind), train, weight)


def losses(task, scores):
    rows = torch.arange(len(scores))
    return task.losses(torch.from_numpy(scores), rows).numpy()


LABELS = ["bee", "ant", None, "cat", "ant"]


def test_a_class_costs_cross_entropy_over_the_logarithm_of_their_number():
    task = task_of(LABELS, ["ant", "bee", "cat"])
    scores = RNG.normal(size=(5, 3))
    goal = np.eye(3)[[1, 0, 0, 2, 0]]
    expected = -(goal * log_softmax(scores, axis=1)).sum(1) / np.log(3)
    found = losses(task, scores)
    present = [0, 1, 3, 4]
    np.testing.assert_allclose(found[present], expected[present], rtol=1e-12)
    assert task.weight.tolist() == [1, 1, 0, 1, 1]
    assert (task.name, task.kind, task.mean, task.spread) == ("y", "class", 0.0, 1.0)


def test_columns_are_those_of_the_head_whatever_labels_are_left():
    task = task_of([7, 3, 7], ["3", "5", "7"])
    assert task.goal.tolist() == [2, 0, 2]
    assert task.norm == pytest.approx(np.log(3))


def test_a_number_costs_its_squared_error_over_the_variance_of_the_training_rows():
    values = [10.0, 14.0, np.nan, 30.0, 1e6]
    task = task_of(values, kind="number", train=[0, 1, 2, 3])
    known = np.array([10.0, 14.0, 30.0])
    assert (task.mean, task.spread) == (pytest.approx(known.mean()), pytest.approx(known.std()))
    scores = RNG.normal(size=(5, 1)).astype(np.float32)
    guess = scores[:, 0] * known.std() + known.mean()
    found = losses(task, scores)[[0, 1, 3]]
    np.testing.assert_allclose(found, (guess[[0, 1, 3]] - known) ** 2 / known.var(), rtol=1e-5)
    assert task.weight.tolist() == [1, 1, 0, 1, 1]


def test_numbers_without_any_spread_are_not_divided_by_it():
    task = task_of([5.0, 5.0, 9.0], kind="number", train=[0, 1])
    assert task.spread == 1.0
    assert losses(task, np.zeros((3, 1), np.float32)).tolist() == [0, 0, 16]


def test_several_labels_cost_the_mean_of_their_entropies_over_that_of_a_coin():
    task = task_of(["a|b", "b", None, "|"], ["a", "b", "c"], "multilabel")
    scores = RNG.normal(size=(4, 3))
    goal = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]])
    chance = expit(scores)
    expected = -(goal * np.log(chance) + (1 - goal) * np.log(1 - chance)).mean(1) / np.log(2)
    found = losses(task, scores)
    np.testing.assert_allclose(found[[0, 1, 3]], expected[[0, 1, 3]], rtol=1e-6)
    assert task.weight.tolist() == [1, 1, 0, 1]


def test_a_label_that_the_head_does_not_know_has_no_column():
    target = Target.decide("y", ["a|new", "b", "a"], "multilabel").subset(np.array([1, 2]))
    task = Objective.of(target, head(["a", "b"], "multilabel"), np.array([0, 1]))
    assert task.goal.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    "task",
    [
        task_of(["a", "b", "c", "d"] * 5, ["a", "b", "c", "d"]),
        task_of(RNG.normal(50, 9, 40), kind="number"),
        task_of(["a", "|"] * 10, ["a"], "multilabel"),
    ],
    ids=["class", "number", "multilabel"],
)
def test_always_saying_the_mean_costs_one(task):
    width = 1 if task.kind == "number" else len(np.unique(task.goal)) if task.goal.ndim == 1 else 1
    found = losses(task, np.zeros((len(task.weight), width), np.float32))
    assert found.mean() == pytest.approx(1, abs=1e-5)


def test_balanced_classes_weigh_as_in_scikit_learn_by_the_training_rows():
    from sklearn.utils.class_weight import compute_class_weight

    values = ["a"] * 6 + ["b"] * 2 + [None] + ["c"] + ["c", "b", "a"]
    train = np.arange(10)
    task = task_of(values, ["a", "b", "c"], train=train, weight="balanced")
    known = [value for value in values[:10] if value is not None]
    own = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=known)
    by_class = dict(zip("abc", own, strict=True))
    expected = [by_class.get(value, 0) for value in values]
    np.testing.assert_allclose(task.weight, expected, rtol=1e-6)
    assert task_of(values, ["a", "b", "c"], train=train).weight.max() == 1


def test_right_answers_are_counted_among_rows_with_a_label():
    task = task_of(LABELS, ["ant", "bee", "cat"])
    scores = torch.eye(3)[[1, 0, 2, 0, 1]]  # right, right, unknown, wrong, wrong
    assert task.right(scores, torch.arange(5)) == 0.5
    assert task.right(scores[:2], torch.arange(2)) == 1.0
    several = task_of(["a|b", None, "|"], ["a", "b"], "multilabel")
    assert several.right(torch.tensor([[1.0, -1], [0, 0], [-1, -1]]), torch.arange(3)) == 0.75


def test_of_a_number_it_is_the_variance_that_is_explained():
    from sklearn.metrics import r2_score

    values = RNG.normal(50, 9, 30)
    task = task_of(values, kind="number")
    scores = RNG.normal(size=(20, 1)).astype(np.float32)
    guess = scores[:, 0] * task.spread + task.mean
    found = task.right(torch.from_numpy(scores), torch.arange(20))
    assert found == pytest.approx(r2_score(values[:20], guess), rel=1e-4)


def test_rows_with_a_label_are_counted():
    assert task_of(LABELS, ["ant", "bee", "cat"]).labelled(np.array([1, 2, 3])) == 2
