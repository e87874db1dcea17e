"""Moments against sums written out: pieces, weights, references, precision, linear maps."""

import numpy as np
import pytest

from pipeline.heads.linear_map import LinearMap
from pipeline.heads.moments import CHUNK_ROWS, Moments
from pipeline.heads.ridge_rows import RidgeRows

N, D, K = 61, 7, 3


def rows(seed: int = 0, n: int = N):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, D)) * np.linspace(0.5, 2, D) + np.linspace(-3, 5, D)
    return X, rng.normal(size=(n, K)) + 1, rng.uniform(0, 3, n)


def taken(X, Y, weight=None, about: int = 0) -> Moments:
    return Moments.starting_at(X[about], Y[about]).add(X, Y, weight)


def written_out(X, Y, weight) -> dict:
    """Everything that is asked of moments, from centred rows."""
    total = weight.sum()
    x, y = X - weight @ X / total, Y - weight @ Y / total
    return {
        "n_samples": len(X),
        "weight": total,
        "x_mean": weight @ X / total,
        "y_mean": weight @ Y / total,
        "x_variance": weight @ x**2 / total,
        "gram": x.T @ (weight[:, None] * x),
        "cross": x.T @ (weight[:, None] * y),
        "yy": np.sum(weight @ y**2),
    }


def told(moments: Moments) -> dict:
    return {
        "n_samples": moments.n_samples,
        "weight": moments.weight,
        "x_mean": moments.x_mean,
        "y_mean": moments.y_mean,
        "x_variance": moments.x_variance,
        "gram": moments.gram_about_mean(),
        "cross": moments.cross_about_mean(),
        "yy": moments.yy_about_mean,
    }


def assert_equal(moments: Moments, expected: dict, **tolerance):
    found = told(moments)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, **({"rtol": 1e-10, "atol": 1e-9} | tolerance), err_msg=name
        )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [1, 7, 60, 61])
def test_pieces_of_any_size_add_up_to_the_sums_over_all_rows(size, weighted):
    X, Y, weight = rows()
    whole = Moments.starting_at(X[0], Y[0])
    for start in range(0, N, size):
        own = slice(start, start + size)
        whole.add(X[own], Y[own], weight[own] if weighted else None)
    assert_equal(whole, written_out(X, Y, weight if weighted else np.ones(N)))


def test_more_rows_than_are_multiplied_at_once_add_up_too():
    X, Y, weight = rows(n=CHUNK_ROWS + 100)
    assert_equal(taken(X, Y, weight), written_out(X, Y, weight), atol=1e-7)


def test_no_rows_add_nothing():
    X, Y, weight = rows()
    before = told(taken(X, Y, weight))
    assert_equal(taken(X, Y, weight).add(X[:0], Y[:0], weight[:0]), before)


@pytest.mark.parametrize("about", [0, 40])
def test_disjoint_rows_add_and_subtract_whatever_their_references(about):
    X, Y, weight = rows()
    first = taken(X[:25], Y[:25], weight[:25])
    second = taken(X[25:], Y[25:], weight[25:], about=about - 25 if about else 3)
    every = first + second
    assert_equal(every, written_out(X, Y, weight))
    assert_equal(every - first, written_out(X[25:], Y[25:], weight[25:]))
    assert_equal(every - second, written_out(X[:25], Y[:25], weight[:25]))


def test_adding_and_subtracting_leave_their_operands_alone():
    X, Y, weight = rows()
    first, second = taken(X[:25], Y[:25], weight[:25]), taken(X[25:], Y[25:], weight[25:])
    before = told(first), told(second)
    _ = first + second, second - first
    for moments, expected in zip((first, second), before, strict=True):
        assert_equal(moments, expected, rtol=0, atol=0)


def test_another_reference_changes_no_answer_but_all_sums():
    X, Y, weight = rows()
    here = taken(X, Y, weight)
    x, y = X.mean(axis=0) + 2, Y.mean(axis=0) - 5
    there = here.moved_to(x, y)
    assert_equal(there, told(here))
    np.testing.assert_allclose(there.x, weight @ (X - x))
    np.testing.assert_allclose(there.y, weight @ (Y - y))
    np.testing.assert_allclose(there.gram, (X - x).T @ (weight[:, None] * (X - x)))
    np.testing.assert_allclose(there.cross, (X - x).T @ (weight[:, None] * (Y - y)))
    np.testing.assert_allclose(there.yy, weight @ (Y - y) ** 2)


def test_the_order_of_rows_does_not_matter():
    X, Y, weight = rows()
    order = np.random.default_rng(5).permutation(N)
    assert_equal(taken(X[order], Y[order], weight[order], about=9), told(taken(X, Y, weight)))


def test_whole_weights_are_repeated_rows_and_weight_zero_is_no_row():
    X, Y, _ = rows()
    times = np.arange(N) % 3
    repeated = told(taken(X.repeat(times, axis=0), Y.repeat(times, axis=0)))
    weighted = told(taken(X, Y, times))
    for name in repeated.keys() - {"n_samples"}:
        np.testing.assert_allclose(weighted[name], repeated[name], rtol=1e-9, atol=1e-9)


def test_single_precision_far_from_zero_keeps_its_covariance():
    """Features of mean 1,000 and variance 1: unshifted, an eighth of the covariance is lost."""
    rng = np.random.default_rng(0)
    X = (1000 + rng.normal(size=(20_000, 20))).astype(np.float32)
    Y = rng.normal(size=(20_000, 2))
    moments = Moments.starting_at(X[:100].mean(axis=0), Y[0]).add(X, Y)
    exact = written_out(X.astype(np.float64), Y, np.ones(len(X)))
    error = np.linalg.norm(moments.gram_about_mean() - exact["gram"])
    assert error < 1e-5 * np.linalg.norm(exact["gram"])
    error = np.linalg.norm(moments.cross_about_mean() - exact["cross"])
    assert error < 1e-5 * np.sqrt(np.trace(exact["gram"]) * exact["yy"])
    unshifted = X.T @ X - np.outer(X.sum(axis=0), X.mean(axis=0))
    assert np.linalg.norm(unshifted - exact["gram"]) > 1e-2 * np.linalg.norm(exact["gram"])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_torch_multiplies_to_what_numpy_does(kind):
    X, Y, weight = rows()
    X = X.astype(kind)
    plain = Moments.starting_at(X[0], Y[0]).add(X, Y, weight)
    torch = Moments.starting_at(X[0], Y[0]).add(X, Y, weight, device="cpu")
    assert torch.gram.dtype == np.float64
    np.testing.assert_allclose(torch.gram, plain.gram, rtol=10 * np.finfo(kind).eps, atol=1e-4)
    np.testing.assert_array_equal(torch.cross, plain.cross)


@pytest.mark.parametrize("columns", [slice(2, 5), np.array([0, 1, 6])])
def test_moments_of_some_columns_are_those_of_the_columns_alone(columns):
    X, Y, weight = rows()
    own = written_out(X[:, columns], Y, weight)
    moments = taken(X, Y, weight)
    np.testing.assert_allclose(moments.gram_about_mean(columns), own["gram"])
    np.testing.assert_allclose(moments.cross_about_mean(columns), own["cross"])


def maps() -> dict[str, LinearMap]:
    rng = np.random.default_rng(3)
    columns = np.array([0, 1, 3, 4])
    return {
        "all": LinearMap(slice(None), np.ones(D)),
        "scaled columns": LinearMap(slice(1, 5), rng.uniform(0.5, 2, 4)),
        "a weighted sum of two layers": LinearMap(
            columns, np.array([1.0, 2.0, 0.5, 1.0]), np.vstack([0.3 * np.eye(2), 0.7 * np.eye(2)])
        ),
        "any matrix": LinearMap(columns, np.ones(4), rng.normal(size=(4, 3))),
    }


@pytest.mark.parametrize("name", maps())
def test_mapped_moments_are_the_moments_of_mapped_rows(name):
    X, Y, weight = rows()
    fusion, moments = maps()[name], taken(X, Y, weight)
    own = written_out(fusion.of_rows(X), Y, weight)
    assert own["gram"].shape == (fusion.width, fusion.width)
    np.testing.assert_allclose(fusion.of_gram(moments), own["gram"])
    np.testing.assert_allclose(fusion.of_cross(moments), own["cross"])


def test_a_weighted_sum_of_layers_is_that_sum():
    X, _, _ = rows()
    fused = maps()["a weighted sum of two layers"].of_rows(X)
    expected = 0.3 * X[:, :2] * [1.0, 2.0] + 0.7 * X[:, 3:5] * [0.5, 1.0]
    np.testing.assert_allclose(fused, expected)


@pytest.mark.parametrize("name", maps())
def test_weights_of_features_go_back_to_weights_of_columns(name):
    X, _, _ = rows()
    fusion = maps()[name]
    weights = np.random.default_rng(4).normal(size=(fusion.width, K))
    np.testing.assert_allclose(
        X[:, fusion.columns] @ fusion.back(weights), fusion.of_rows(X) @ weights
    )


def test_maps_keep_single_precision():
    X, _, _ = rows()
    for fusion in maps().values():
        assert fusion.of_rows(X.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("with_moments", [False, True])
def test_rows_taken_out_leave_the_problem_of_the_others(with_moments):
    X, Y, weight = rows()
    moments = taken(X, Y, weight) if with_moments else None
    gone = np.array([0, 5, 33])
    rest = RidgeRows(X, Y, weight, [gone], moments).without(gone)
    kept = np.setdiff1d(np.arange(N), gone)
    own = written_out(X[kept], Y[kept], weight[kept])
    gram, cross = rest.gram(LinearMap(slice(None), np.ones(D)))
    np.testing.assert_allclose(gram, own["gram"])
    np.testing.assert_allclose(cross, own["cross"], atol=1e-12)
    np.testing.assert_allclose(rest.x_mean, own["x_mean"])
    np.testing.assert_allclose(rest.x_variance, own["x_variance"])
    np.testing.assert_allclose(rest.yy, own["yy"])
    np.testing.assert_allclose(rest.total, own["weight"])
    assert (rest.n_samples, rest.groups) == (N - 3, None)
    np.testing.assert_array_equal(rest.X, X[kept])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("with_moments", [False, True])
def test_a_constant_column_has_no_variance_whatever_its_size(kind, with_moments):
    X, Y, weight = rows()
    X[:, 2] = 1 / 3
    X[:, 4] = 12345.678
    X = X.astype(kind)
    moments = Moments.starting_at(X.mean(axis=0), Y[0]).add(X, Y, weight) if with_moments else None
    variance = RidgeRows(X, Y, weight, (), moments).x_variance
    assert variance[[2, 4]].tolist() == [0, 0]
    assert (np.delete(variance, [2, 4]) > 0.1).all()
