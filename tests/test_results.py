"""Figures against scikit-learn and plain numpy, and results on their way through JSON."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from pipeline.results import (
    Candidate,
    TargetResults,
    calibration_error,
    class_figures,
    headline,
    interval,
    multilabel_figures,
    number_figures,
    results_json,
)

CLASSES = ["elk", "fox", "owl", "yak"]


def answers(n: int, seed: int, classes=CLASSES):
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.full(len(classes), 0.4), n)
    labels = np.array(classes)
    return labels[rng.integers(len(classes), size=n)], labels[proba.argmax(axis=1)], proba


def bins_by_hand(confidence, right) -> float:
    """Guo et al. (2017), bin by bin: (0, 1/15], (1/15, 2/15], ..."""
    total = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            total += inside.sum() / len(right) * gap
    return total


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 60), seed=st.integers(0, 10**6))
def test_class_figures_are_those_of_scikit_learn_and_numpy(n, seed):
    truth, chosen, proba = answers(n, seed)
    figures = class_figures(truth.tolist(), chosen.tolist(), proba, CLASSES)
    right = truth == chosen
    recalls = [right[truth == label].mean() for label in np.unique(truth)]
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(truth, chosen))
    assert figures["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert figures["macro_f1"] == pytest.approx(
        metrics.f1_score(truth, chosen, average="macro", zero_division=0.0)
    )
    assert figures["log_loss"] == pytest.approx(metrics.log_loss(truth, proba, labels=CLASSES))
    assert figures["majority"] == pytest.approx(max(np.mean(truth == c) for c in CLASSES))
    assert figures["ece"] == pytest.approx(bins_by_hand(proba.max(axis=1), right), abs=1e-12)


def test_balanced_accuracy_is_scikit_learns_where_all_classes_are_tested():
    truth, chosen, proba = answers(200, 3)
    figures = class_figures(truth.tolist(), chosen.tolist(), proba, CLASSES)
    assert figures["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(truth, chosen)
    )


def test_labels_that_were_never_trained_on_are_errors_each_a_class_of_its_own():
    truth = ["elk", "new", "newer", "fox"]
    chosen = ["elk", "elk", "fox", "fox"]
    proba = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])
    figures = class_figures(truth, chosen, proba, ["elk", "fox"])
    assert figures["accuracy"] == 0.5
    assert figures["balanced_accuracy"] == pytest.approx(
        metrics.recall_score(truth, chosen, average="macro", zero_division=0.0)
    )
    assert figures["macro_f1"] == pytest.approx(
        metrics.f1_score(truth, chosen, average="macro", zero_division=0.0)
    )
    expected = -np.log([0.8, 1e-15, 1e-15, 0.9]).mean()
    assert figures["log_loss"] == pytest.approx(expected)
    right = np.array([True, False, False, True])
    assert figures["ece"] == pytest.approx(bins_by_hand(proba.max(axis=1), right))


def test_labels_of_any_type_are_measured():
    proba = np.array([[1.0, 0.0], [0.0, 1.0]])
    for classes in ([0, 7], [0.5, 1.5], [False, True]):
        assert class_figures(classes, classes, proba, classes)["accuracy"] == 1


def test_more_small_classes_than_scikit_learn_expects_are_measured_without_a_warning():
    classes = [f"c{number:02}" for number in range(30)]
    figures = class_figures(classes, classes, np.eye(30), classes)
    assert figures == pytest.approx(
        {"accuracy": 1, "balanced_accuracy": 1, "macro_f1": 1, "majority": 1 / 30,
         "log_loss": 0, "ece": 0}
    )  # fmt: skip


def test_certainty_at_the_edges_falls_into_the_outer_bins():
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0
    assert calibration_error(np.array([0.0, 1.0]), np.array([True, False])) == 1


def test_number_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, found = rng.normal(size=(2, 50))
    assert number_figures(truth, found) == {
        "r2": pytest.approx(metrics.r2_score(truth, found)),
        "mae": pytest.approx(np.abs(truth - found).mean()),
    }


def test_one_number_has_no_r2():
    assert number_figures(np.array([2.0]), np.array([2.5])) == {"r2": None, "mae": 0.5}


def test_multilabel_figures_are_those_of_scikit_learn():
    truth, found = np.random.default_rng(0).integers(2, size=(2, 40, 5))
    truth[:, 3] = found[:, 3] = 0  # a label that nobody has
    assert multilabel_figures(truth, found) == {
        name: pytest.approx(metrics.f1_score(truth, found, average=average, zero_division=0.0))
        for name, average in (("macro_f1", "macro"), ("micro_f1", "micro"))
    }


@pytest.mark.parametrize(("share", "n"), [(0.0, 10), (0.5, 1), (0.93, 400), (1.0, 3)])
def test_the_interval_is_wilsons(share, n):
    """Both ends solve |p - share| = z sqrt(p (1 - p) / n)."""
    for end in interval(share, n):
        assert abs(end - share) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / n), abs=1e-9)
    low, high = interval(share, n)
    assert 0 <= low <= share <= high <= 1


RESULTS = TargetResults(
    "class",
    {"accuracy": 0.9, "ece": None},
    n_train=9,
    n_test=3,
    layers=("a/b", "a/c"),
    fusion="concat",
    head="ridge",
    fusions=(
        Candidate("concat", "ridge", ("a/b", "a/c"), "cv",
                  {"accuracy": 0.8, "log_loss": 0.5, "log_loss_se": None}, 1.23456, True),
        Candidate("last", "ridge", ("a/c",), "cv", {}, None),
    ),
)  # fmt: skip


def test_results_come_back_from_strict_json_as_they_were():
    text = json.dumps(RESULTS.to_json(), allow_nan=False)
    found = TargetResults.from_json(json.loads(text))
    assert found.to_json() == RESULTS.to_json()
    assert found.figures == RESULTS.figures
    assert found.fusions[1] == RESULTS.fusions[1]
    assert found.fusions[0].score == RESULTS.fusions[0].score


def test_the_json_has_the_stated_shape():
    assert results_json({"label": RESULTS}, 2.00049) == {
        "targets": {
            "label": {
                "kind": "class", "accuracy": 0.9, "ece": None, "n_train": 9, "n_test": 3,
                "layers": ["a/b", "a/c"], "fusion": "concat", "head": "ridge",
                "fusions": [
                    {"fusion": "concat", "head": "ridge", "layers": ["a/b", "a/c"], "by": "cv",
                     "accuracy": 0.8, "log_loss": 0.5, "log_loss_se": None, "seconds": 1.235,
                     "tied": True},
                    {"fusion": "last", "head": "ridge", "layers": ["a/c"], "by": "cv",
                     "seconds": None, "tied": None},
                ],
            }
        },
        "seconds": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"), [("class", "accuracy"), ("number", "r2"), ("multilabel", "macro_f1")]
)
def test_every_kind_has_a_figure_that_is_shown_first(kind, name):
    assert headline(kind) == name
