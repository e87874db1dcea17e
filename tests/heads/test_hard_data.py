"""Data that are hard on a ridge: dead layers, odd weights, rows that no fold tests, one group."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from pipeline.errors import InputError, OptionError
from pipeline.heads import (
    BestClassifier,
    LayerRidgeClassifier,
    LayerRidgeRegressor,
    Moments,
    search_fusions,
)
from pipeline.heads.looking import families_of

SLICES = {"a": slice(0, 4), "b": slice(4, 8), "c": slice(8, 12)}


def animals(n: int = 200, dtype=np.float32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, n)
    X = rng.normal(size=(n, 12)).astype(dtype)
    X[np.arange(n), codes + 4] += 3
    return X, codes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dead", ["a", "c"])
def test_a_dead_layer_changes_nothing_for_the_others(dead, dtype):
    X, codes = animals(dtype=dtype)
    alive, _ = search_fusions(X, codes, SLICES)
    X[:, SLICES[dead]] = 0
    found, table = search_fusions(X, codes, SLICES)
    assert found.loo_score_ > alive.loo_score_ - 0.03
    assert all(np.isfinite(row["log_loss"]) for row in table)
    number, _ = search_fusions(X, X[:, 5].astype(float), SLICES)
    assert number.loo_score_ > 0.9
    assert found.layer_importance_[dead] == 0


def test_nothing_but_constant_columns_gives_the_shares_of_the_classes():
    X, codes = np.zeros((200, 12), np.float32), animals()[1]
    found = LayerRidgeClassifier(SLICES).fit(X, codes)
    shares = np.bincount(codes) / 200
    np.testing.assert_allclose(found.predict_proba(X[:1])[0].argmax(), shares.argmax())
    assert np.isfinite(found.loo_proba_).all()


def test_logistic_regression_is_stacked_by_rows_that_a_fold_has_tested():
    """Of more than 4,000 rows some are in no fold: they say nothing of it."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 5_000)
    X = rng.normal(size=(5_000, 4)) + 1.2 * np.eye(3, 4)[codes]
    best = BestClassifier(n_components=16).fit(X[:4_500], codes[:4_500])
    alone = LogisticRegression().fit(X[:4_500], codes[:4_500])
    losses = [log_loss(codes[4_500:], one.predict_proba(X[4_500:])) for one in (best, alone)]
    assert losses[0] < losses[1] + 0.01


@pytest.mark.parametrize("by", ["cv", "weights"])
def test_rows_that_leave_and_leave_nothing_are_refused(by):
    X, _ = animals()
    folds = [([], np.arange(200))] if by == "cv" else None
    weight, groups = (None, None) if by == "cv" else (np.r_[np.ones(199), 0], np.eye(200)[199])
    with pytest.raises(InputError) as caught:
        LayerRidgeRegressor(SLICES, cv=folds).fit(X, X[:, 0], weight, groups)
    rows = 200 if by == "cv" else 199
    assert str(caught.value) == (
        f"{rows} rows leave together, and no other row has a weight: without them nothing is left "
        "to fit. Give groups or folds that split the rows, or none."
    )


@pytest.mark.parametrize("cv", [5, iter([])])
def test_folds_that_are_no_list_are_refused(cv):
    with pytest.raises(OptionError, match=r"but must be a list of \(train rows, test rows\)"):
        LayerRidgeClassifier(SLICES, cv=cv).fit(*animals())


def test_groups_may_be_of_any_kind_and_missing_in_any_way():
    groups = ["a", None, "a", float("nan"), "", pd.NA, ("p", 1), pd.NaT, ("p", 1)]
    assert [rows.tolist() for rows in families_of(groups, 9)] == [[0, 2], [6, 8]]
    with pytest.raises(InputError, match=r"the group of row 0 is \[1\], but must be one value"):
        families_of([[1], [2]], 2)


def test_classes_of_one_row_each_are_told_apart_as_ridge_tells_them():
    X, _ = animals(20)
    found = BestClassifier(n_components=32).fit(X, np.arange(20))
    assert len(set(found.predict(X).tolist())) > 10


def test_chunks_that_are_none_are_refused():
    X, codes = animals()
    once = iter([(X, codes)])
    with pytest.raises(InputError, match="a pass gave 0 rows, but there are 200 labels"):
        LayerRidgeClassifier(SLICES).fit_chunks(lambda: once)
    with pytest.raises(InputError, match=r"chunk 0 has X of the shape \(200, 12\) and y of the"):
        LayerRidgeClassifier(SLICES).fit_chunks(lambda: iter([(X, codes[:3])]))


@pytest.mark.parametrize("dtype", [int, np.float16, np.float32])
def test_moments_of_any_type_of_number_have_their_mean(dtype):
    X = (np.arange(60).reshape(20, 3) * 7 % 31 + 1_000).astype(dtype)
    Y = np.zeros((20, 1))
    found = Moments.starting_at(X.mean(axis=0, dtype=float) + 0.3, [0.0]).add(X, Y)
    np.testing.assert_allclose(found.x_mean, X.mean(axis=0, dtype=float), rtol=1e-9)
    np.testing.assert_allclose(found.x_variance, X.astype(float).var(axis=0), rtol=1e-4)
