"""From what is asked for to a fitted pipeline: choices, the search, heads that fuse, old steps."""

import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from stores import LAYERS, vectors

from pipeline.errors import OptionError, UnknownNameError
from pipeline.heads import (
    FORMER_STEPS,
    Problem,
    check_choice,
    fit_fusing,
    fit_ridge,
    is_ridge,
    make_head,
    makeable,
    resolved_head,
    search_fusions,
)
from pipeline.heads.layer_ridge import LayerRidgeClassifier
from pipeline.samples import Target

SLICES = {"net/low": slice(0, 6), "net/high": slice(6, 11)}
FUSION_NAMES = "last, concat, average, weighted, evidence, late, forward, selection, single:LAYER."


def problem(kind: str = "class", n: int = 60, seed: int = 0, **extra) -> Problem:
    layers, codes = vectors(n, seed)
    X = np.concatenate(list(layers.values()), axis=1)
    cells = {
        "class": np.array(["elk", "fox", "owl"])[codes],
        "number": X[:, 6] * 2.0 + X[:, 0],
        "multilabel": [("|", "big", "big|cat")[code] for code in codes],
    }[kind]
    return Problem(X, SLICES, Target.decide("y", cells, kind), **extra)


def ridge(given, fusions=None, **options):
    return fit_ridge(given, fusions, **{"class_weight": None, "random_state": 0} | options)


def in_pieces(given: Problem, size: int = 7) -> Problem:
    X = given.X
    return Problem(
        None, given.layer_slices, given.target, given.groups, given.digests, given.sample_weight,
        pieces=lambda: (X[at : at + size] for at in range(0, len(X), size)),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["class", "number"])
def test_the_fitted_ridge_is_the_winner_of_the_search_on_its_own_layers(kind):
    given = problem(kind)
    fitted, found = ridge(given)
    winner, table = search_fusions(given.X, given.y, SLICES)
    assert [(one.fusion, list(one.layers), one.by) for one in found] == [
        (row["fusion"], row["layers"], row["by"]) for row in table
    ]
    assert {one.head for one in found} == {"ridge"}
    columns = np.r_[tuple(SLICES[name] for name in found[0].layers)]
    own = given.X[:, columns]
    if kind == "class":
        np.testing.assert_allclose(
            fitted.predict_proba(own), winner.predict_proba(given.X), atol=1e-5
        )
    else:
        np.testing.assert_allclose(fitted.predict(own), winner.predict(given.X), atol=1e-5)
    assert fitted[-1].n_features_in_ == len(columns)
    loss = "mse" if kind == "number" else "log_loss"
    assert [one.score[loss] for one in found] == [row[loss] for row in table]


def test_columns_of_all_layers_are_taken_where_they_are_asked_for():
    given = problem()
    fitted, _ = ridge(given, "last", layers=list(SLICES))
    narrow, _ = ridge(given, "last")
    assert (fitted[-1].n_features_in_, narrow[-1].n_features_in_) == (11, 5)
    np.testing.assert_allclose(
        fitted.predict_proba(given.X), narrow.predict_proba(given.X[:, 6:]), atol=1e-6
    )


@pytest.mark.parametrize("kind", ["class", "number", "multilabel"])
def test_rows_in_pieces_are_fitted_to_what_they_are_at_once(kind):
    at_once, table = ridge(problem(kind), "concat")
    pieces, again = ridge(in_pieces(problem(kind)), "concat")
    np.testing.assert_allclose(pieces[-1].coef_, at_once[-1].coef_, rtol=1e-4, atol=1e-6)
    loss = "log_loss" if kind == "class" else "mse"
    assert again[0].score[loss] == pytest.approx(table[0].score[loss], rel=1e-3, abs=1e-6)


def test_what_needs_all_rows_at_once_says_so_where_they_come_in_pieces():
    with pytest.raises(OptionError) as caught:
        _ = in_pieces(problem()).matrix
    assert str(caught.value) == (
        "this head needs all 60 rows in memory, about 7.92 kB, which is more than the limit. Give "
        "more (--memory), fewer layers (--layers), or a head that takes them in pieces: auto, "
        "ridge or layer_ridge."
    )


def test_layers_left_out_are_left_out_of_pieces_too():
    given = in_pieces(problem()).restricted(["net/high"])
    assert dict(given.layer_slices) == {"net/high": slice(0, 5)}
    np.testing.assert_array_equal(np.concatenate(list(given.passes())), problem().X[:, 6:])


@pytest.mark.parametrize("kind", ["class", "number"])
def test_a_head_that_fuses_takes_all_layers_and_says_what_they_are_worth(kind):
    given = problem(kind)
    fitted, (found,) = fit_fusing(given, "layer_ridge", class_weight=None, random_state=0)
    assert (found.fusion, found.head, found.by) == ("evidence", "layer_ridge", "loo")
    assert found.layers == tuple(SLICES)
    head = fitted[-1]
    assert list(head.layer_importance_) == list(SLICES)
    assert found.score == head.loo_figures_
    assert fitted.score(given.X, given.y) > 0.9


def test_weights_families_and_class_weights_reach_the_ridge():
    weight = np.random.default_rng(0).uniform(0.5, 2, 60)
    groups = [row // 4 for row in range(60)]
    given = problem(groups=groups, sample_weight=weight)
    fitted, (found,) = ridge(given, "concat", class_weight="balanced")
    oracle, (row,) = search_fusions(
        given.X, given.y, SLICES, groups, weight, fusions=["concat"], class_weight="balanced"
    )
    np.testing.assert_array_equal(fitted[-1].coef_, oracle.coef_)
    assert found.score["log_loss"] == row["log_loss"]


def test_a_class_in_one_group_alone_is_left_out_row_by_row_and_said(caplog):
    labels = problem().target.labels[problem().target.encode()]
    groups = ["nest" if label == "owl" else f"g{row // 6}" for row, label in enumerate(labels)]
    with caplog.at_level(logging.INFO, "pipeline"):
        families = problem(groups=groups).leave_together()
    (said,) = {record.getMessage() for record in caplog.records}
    assert said == (
        "class owl lies in one group alone, or is copies of one input: its rows are left out one "
        "at a time, so the figures of the comparison flatter it"
    )
    owls = [family for family, label in zip(families, labels, strict=True) if label == "owl"]
    assert len(set(owls)) == len(owls) == 20
    others = [family for family, label in zip(families, labels, strict=True) if label != "owl"]
    assert len(set(others)) == 10
    assert ridge(problem(groups=groups), "last")[1][0].score["log_loss"] > 0


def test_weights_of_classes_are_refused_for_a_number():
    with pytest.raises(OptionError, match="class weight balanced does not apply to the head ridge"):
        ridge(problem("number"), class_weight="balanced")


def test_groups_that_are_one_group_are_no_groups():
    given = problem("number", groups=["wood"] * 60)
    assert given.leave_together() is None
    assert ridge(given, "last")[1][0].score["mse"] > 0


# --- choices ------------------------------------------------------------------------------------


def test_auto_is_ridge_for_classes_and_numbers_and_logistic_for_several_labels():
    assert [resolved_head("auto", kind) for kind in ("class", "number", "multilabel")] == [
        "ridge", "ridge", "logistic",
    ]  # fmt: skip
    own = LogisticRegression()
    assert resolved_head(own, "class") is own
    assert resolved_head("svm", "class") == "svm"
    assert is_ridge("ridge", "class")
    assert not is_ridge("ridge", "multilabel")
    assert not is_ridge(Ridge(), "number")


def test_what_fusers_can_make_is_listed_for_several_layers_and_for_one():
    assert makeable(list(LAYERS)) == ["last", "single:net/low", "average", "weighted", "concat"]
    assert makeable(["net/low"]) == ["last"]


@pytest.mark.parametrize(
    ("fusion", "head", "kind"),
    [
        ("auto", "ridge", "class"), ("auto", "layer_ridge", "number"),
        ("evidence", "auto", "class"),
        ("late", "ridge", "number"), ("single:low", "svm", "class"), ("weighted", "knn", "class"),
        ("concat", LogisticRegression(), "multilabel"), ("selection", "ridge", "class"),
    ],
)  # fmt: skip
def test_choices_that_go_together_pass(fusion, head, kind):
    assert check_choice(fusion, head, kind, list(LAYERS)) is None


@pytest.mark.parametrize(
    ("fusion", "head", "kind", "error", "sentence"),
    [
        ("evidance", "ridge", "class", UnknownNameError,
         f"unknown fusion 'evidance'. Did you mean 'evidence'? Accepted: auto, {FUSION_NAMES}"),
        ("single", "ridge", "class", UnknownNameError,
         f"unknown fusion 'single'. Did you mean 'single:LAYER'? Accepted: auto, {FUSION_NAMES}"),
        ("single:net/hihg", "ridge", "class", UnknownNameError,
         "unknown layer 'net/hihg'. Did you mean 'net/high'? Accepted: net/low, net/high."),
        ("concat", "layer_ridge", "class", OptionError,
         "head layer_ridge fuses the layers itself, but fusion is concat. Leave the fusion out, or "
         "take another head: ridge."),
        ("auto", "layer_ridge", "multilabel", OptionError,
         "head layer_ridge predicts one class or number a row, but the target has several labels. "
         "Take another head: logistic."),
        ("evidence", "logistic", "class", OptionError,
         "fusion evidence is found by ridge and made for it, but the head is logistic. Take head "
         "ridge, or another fusion: last, average, weighted, concat or single:LAYER."),
        ("evidence", "auto", "multilabel", OptionError,
         "fusion evidence is found by a ridge that predicts one class or number a row, but the "
         "target has several labels. Take another fusion: last, average, weighted, concat or "
         "single:LAYER."),
        ("late", LogisticRegression(), "class", OptionError,
         "fusion late is found by ridge and made for it, but the head is LogisticRegression. Take "
         "head ridge, or another fusion: last, average, weighted, concat or single:LAYER."),
    ],
)  # fmt: skip
def test_choices_that_do_not_go_together_are_refused(fusion, head, kind, error, sentence):
    with pytest.raises(error) as caught:
        check_choice(fusion, head, kind, list(LAYERS))
    assert str(caught.value) == sentence


def test_a_label_whose_rows_are_one_group_is_learnt_by_ridge_too():
    rng = np.random.default_rng(0)
    Y = np.arange(40)[:, None] % [2, 4] == 0
    X = rng.normal(size=(40, 5)) + np.hstack([Y, np.zeros((40, 3))]) * 4
    groups = np.where(Y[:, 1], "one", np.arange(40).astype(str))
    head = make_head("ridge", "multilabel", labels=["even", "fourth"])
    found = head.fit(X, Y.astype(int), groups=groups).predict(X)
    assert (found == Y).mean() > 0.9


# --- steps of old files -------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_the_ridge_of_version_1_predicts_what_it_did(classes):
    rng = np.random.default_rng(0)
    coef, intercept = rng.normal(size=(4, classes)), rng.normal(size=classes)
    labels = np.array(["elk", "fox", "owl"])[:classes]
    state = {
        "alphas": (1.0,), "class_weight": None, "cv": None, "random_state": 0, "alpha_": 1.0,
        "coef_": coef, "intercept_": intercept, "classes_": labels, "temperature_": 0.3,
    }  # fmt: skip
    head = FORMER_STEPS["LooRidgeClassifier"](state)
    assert isinstance(head, LayerRidgeClassifier)
    X = rng.normal(size=(6, 4))
    powers = np.exp((X @ coef + intercept) / 0.3)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(head.predict_proba(X), expected)
    np.testing.assert_array_equal(head.predict(X), labels[expected.argmax(axis=1)])


def test_the_number_ridge_of_version_1_predicts_what_it_did():
    rng = np.random.default_rng(0)
    coef = rng.normal(size=(4, 1))
    state = {"alphas": (1.0,), "cv": None, "random_state": 0, "alpha_": 1.0, "coef_": coef,
             "intercept_": np.array([2.5])}  # fmt: skip
    head = FORMER_STEPS["LooRidgeRegressor"](state)
    X = rng.normal(size=(6, 4))
    np.testing.assert_allclose(head.predict(X), X @ coef[:, 0] + 2.5)
