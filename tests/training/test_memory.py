"""More rows than memory: what is planned, what is refused, and that pieces change nothing."""

import numpy as np
import pytest

from pipeline.cache import EmbeddingStore
from pipeline.config import TrainOptions
from pipeline.errors import OptionError
from pipeline.heads import Problem, fit_ridge
from pipeline.memory import free_memory, parse_bytes, shown_bytes, used_memory
from pipeline.samples import Target
from pipeline.training.memory import MemoryPlan, plan_memory
from pipeline.training.rows import problems_of
from pipeline.training.tasks import Task

SLICES = {"net/low": slice(0, 20), "net/high": slice(20, 50)}


def many(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, n)
    X = rng.normal(size=(n, 50)).astype(np.float32)
    X[:, 20:] += 0.3 * codes[:, None]
    return X, np.array(["elk", "owl"])[codes]


def test_what_fits_is_held_and_what_does_not_is_read_in_pieces():
    assert plan_memory(1_000, 100, 10, None).in_memory
    assert plan_memory(1_000, 100, 10, "1TB").in_memory
    room = used_memory() + 400_000_000
    plan = plan_memory(400_000, 1_000, 10, f"{room / 1e9:.3f}GB")
    assert not plan.in_memory
    assert 1_000 <= plan.most < 20_000


def test_a_limit_too_small_for_one_block_is_refused_with_what_is_needed():
    with pytest.raises(OptionError) as caught:
        plan_memory(100_000, 2_064, 10, "500MB")
    said = str(caught.value)
    assert said.startswith("memory is 500 MB, but the moments of 2064 features, one block of rows")
    needed = said.partition("--memory ")[2].partition(",")[0]
    assert said.endswith(f"Give more, like --memory {needed}, or fewer layers: --layers.")
    assert plan_memory(100_000, 2_064, 10, needed).most >= 1_000


@pytest.mark.parametrize("kind", ["class", "number"])
def test_rows_in_pieces_give_what_rows_at_once_give(kind):
    X, labels = many(300)
    target = Target.decide("y", labels if kind == "class" else X[:, 25] * 2.0, kind)
    at_once = Problem(X, SLICES, target)
    pieces = Problem(None, SLICES, target, pieces=lambda: iter(np.array_split(X, 7)))
    shared = {"class_weight": None, "random_state": 0}
    (one, found), (other, told) = (fit_ridge(p, None, **shared) for p in (at_once, pieces))
    losses = [{row.fusion: list(row.score.values())[1] for row in rows} for rows in (found, told)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3, abs=1e-8)
    np.testing.assert_allclose(one[-1].coef_, other[-1].coef_, rtol=1e-4, atol=1e-6)


def test_a_store_is_read_in_pieces_and_another_head_than_ridge_says_that_it_cannot():
    X, labels = many(9_000)
    store = EmbeddingStore.from_arrays(
        {name: X[:, own] for name, own in SLICES.items()},
        [str(row) for row in range(len(X))],
        {"label": labels},
    )
    task = Task(Target.decide("label", labels), np.arange(0, 9_000, 2))
    at_once, in_pieces = (
        problems_of(
            store, list(SLICES), None, {"label": task}, MemoryPlan(in_memory, 1_500, 10**9)
        )(task)
        for in_memory in (True, False)
    )
    pieces = [len(piece) for piece in in_pieces.passes()]
    assert (pieces, in_pieces.X, in_pieces.most_rows) == ([4_096, 404], None, 1_500)
    shared = {"class_weight": None, "random_state": 0}
    whole, _ = fit_ridge(at_once, "concat", **shared)
    streamed, (found,) = fit_ridge(in_pieces, "concat", **shared)
    np.testing.assert_allclose(whole[-1].coef_, streamed[-1].coef_, rtol=0.3, atol=1e-3)
    assert found.score["accuracy"] > 0.75
    with pytest.raises(OptionError) as caught:
        in_pieces.subset(np.arange(3))
    assert str(caught.value) == (
        "this head needs all 4500 rows in memory, about 2.7 MB, which is more than the limit. Give "
        "more (--memory), fewer layers (--layers), or a head that takes them in pieces: auto, "
        "ridge or layer_ridge."
    )


@pytest.mark.parametrize("text", ["8XB", "-1GB", "0MB", "much"])
def test_a_memory_that_is_none_is_refused(text):
    with pytest.raises(OptionError) as caught:
        TrainOptions(memory=text)
    assert str(caught.value) == (
        f"memory is {text!r}, but must be a number with a unit, like 8GB, 500MB or 2GiB."
    )


def test_sizes_are_read_and_shown():
    assert parse_bytes("500MB") == 500_000_000
    assert parse_bytes("2GiB") == 2 * 2**30
    assert shown_bytes(1_234_000_000) == "1.23 GB"
    assert 0 < used_memory() < 2**40
    assert free_memory() > 2**20
