"""The search over fusions: every candidate against plain refits, and which one wins."""

import numpy as np
import pytest
import ridge_by_hand as by_hand
from scipy.optimize import nnls

from pipeline.errors import InputError, UnknownNameError
from pipeline.fusion import learn_weights, orthonormal_maps
from pipeline.heads import search_fusions
from pipeline.heads.fused import FUSIONS, Fused
from pipeline.heads.inner import inner_folds
from pipeline.heads.judging import NumberJudge, Verdict
from pipeline.heads.search import _ranked

SLICES = {"net/low": slice(0, 4), "net/mid": slice(4, 8), "net/high": slice(8, 12)}
SPANS = [(own.start, own.stop) for own in SLICES.values()]
EVERY = [
    "last", "single:net/low", "single:net/mid", "average", "concat", "weighted", "evidence",
    "late", "forward", "selection",
]  # fmt: skip
SHAPES = {"by moments": 40, "by features": 18, "by rows": 9}


def numbers(n: int = 40, seed: int = 0, outputs: int = 2):
    """Numbers of which the middle layer knows most, the upper one some, the lower one nothing."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 12)) * np.linspace(0.5, 3, 12) + np.linspace(-9, 9, 12)
    Y = X[:, 4:6] @ rng.normal(size=(2, outputs)) + 0.3 * X[:, 8:9] + rng.normal(size=(n, outputs))
    return X, Y, rng.uniform(0.3, 2, n)


def animals(n: int = 60, seed: int = 0, low=0.0, mid=1.0, high=1.0, classes: int = 3):
    """Three layers that know the class as well as their numbers say."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    X = rng.normal(size=(n, 12))
    for start, apart in zip((0, 4, 8), (low, mid, high), strict=True):
        X[:, start : start + 4] += apart * np.eye(4)[codes]
    return X, np.array(["elk", "fox", "owl", "yak"])[codes]


def table_of(*args, **options) -> dict[str, dict]:
    return {row["fusion"]: row for row in search_fusions(*args, **options)[1]}


def only(fusion, X, Y, weight=None, groups=None):
    """Fit one fusion; and its scaled columns, made by hand."""
    head, _ = search_fusions(X, Y, SLICES, groups, weight, fusions=[fusion], random_state=3)
    weight = np.ones(len(X)) if weight is None else weight
    return head, X * by_hand.scaled(X, SPANS, "shrunk", weight), weight


# --- each fusion against refits -----------------------------------------------------------------


def assert_refits(head, mapped, Y, weight, penalties, families):
    expected = by_hand.left_out(mapped, Y, weight, penalties, families)
    np.testing.assert_allclose(head.loo_prediction_, expected, rtol=1e-7, atol=1e-7)
    errors = ((expected - Y) ** 2).mean(axis=1)
    assert head.loo_mse_ == pytest.approx(np.average(errors, weights=weight))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fusion", ["last", "single:mid", "concat", "average", "weighted"])
def test_left_out_predictions_are_those_of_refits_on_mapped_columns(
    fusion, weighted, grouped, shape
):
    X, Y, weight = numbers(SHAPES[shape])
    groups = [row // 2 for row in range(len(X))] if grouped else None
    head, scaled, weight = only(fusion, X, Y, weight if weighted else None, groups)
    layers = np.stack([scaled[:, start:stop] for start, stop in SPANS])
    if fusion == "weighted":
        centre = np.average(layers, axis=1, weights=weight)[:, None]
        shares = learn_weights(list(layers - centre), Y - Y.mean(axis=0))
    mapped = {
        "last": lambda: layers[2],
        "single:mid": lambda: layers[1],
        "concat": lambda: scaled,
        "average": lambda: layers.mean(axis=0),
        "weighted": lambda: np.tensordot(shares, layers, 1),
    }[fusion]()
    families = by_hand.families_of(groups) if grouped else by_hand.alone(len(X))
    assert_refits(head, mapped, Y, weight, head.alpha_, families)
    coef, intercept = by_hand.line(mapped, Y, weight, head.alpha_)
    np.testing.assert_allclose(head.predict(X), mapped @ coef + intercept, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_evidence_predicts_as_a_refit_under_its_penalties(shape):
    X, Y, weight = numbers(SHAPES[shape])
    head, scaled, weight = only("evidence", X, Y, weight)
    assert list(head.layer_penalties_) == list(SLICES)
    own = np.repeat(list(head.layer_penalties_.values()), 4)
    if shape == "by moments":
        assert own[0] > 2 * own[4]  # the lower layer knows nothing
    assert_refits(head, scaled, Y, weight, own, by_hand.alone(len(X)))


def gcv(features, Y, weight, alpha) -> float:
    """Generalised cross-validation from the hat matrix written out."""
    root = np.sqrt(weight)[:, None]
    centred = (features - np.average(features, axis=0, weights=weight)) * root
    outputs = (Y - np.average(Y, axis=0, weights=weight)) * root
    hat = centred @ np.linalg.solve(
        centred.T @ centred + alpha * np.eye(features.shape[1]), centred.T
    )
    n = len(Y)
    return n * np.sum((outputs - hat @ outputs) ** 2) / (n - 1 - np.trace(hat)) ** 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [40, 18])
def test_forward_adds_the_layer_that_lowers_generalised_cross_validation_most(n, seed):
    X, Y, weight = numbers(n, seed)
    head, scaled, weight = only("forward", X, Y, weight)
    names = list(SLICES)
    alone = {name: only(f"single:{name}", X, Y, weight)[0] for name in names}
    chosen = [min(names, key=lambda name: alone[name].loo_mse_)]
    alpha = alone[chosen[0]].alpha_

    def loss(layers):
        columns = np.r_[tuple(SLICES[name] for name in names if name in layers)]
        return gcv(scaled[:, columns], Y, weight, alpha)

    while len(chosen) < 3:
        more = min((name for name in names if name not in chosen), key=lambda x: loss([*chosen, x]))
        if loss([*chosen, more]) >= loss(chosen):
            break
        chosen.append(more)
    assert set(head.layers_) == set(chosen)
    columns = np.r_[tuple(SLICES[name] for name in head.layers_)]
    assert_refits(head, scaled[:, columns], Y, weight, head.alpha_, by_hand.alone(n))
    assert {name for name, own in head.layer_penalties_.items() if np.isinf(own)} == (
        set(names) - set(chosen)
    )


def test_late_fusion_is_least_squares_on_the_left_out_predictions_of_every_layer():
    X, Y, weight = numbers()
    Y += X[:, 8:10]
    head, _, weight = only("late", X, Y, weight)
    centre = np.average(Y, axis=0, weights=weight)
    alone = [only(f"single:{name}", X, Y, weight)[0] for name in SLICES]
    root = np.sqrt(np.repeat(weight, 2))
    columns = np.stack([(one.loo_prediction_ - centre).ravel() for one in alone], axis=1)
    shares, _ = nnls(root[:, None] * columns, root * (Y - centre).ravel())
    expected = centre + (columns @ shares).reshape(Y.shape)
    np.testing.assert_allclose(head.loo_prediction_, expected, atol=1e-8)
    new = X + 1
    plain = centre + sum(
        share * (one.predict(new) - centre) for share, one in zip(shares, alone, strict=True)
    )
    np.testing.assert_allclose(head.predict(new), plain, atol=1e-8)
    assert np.count_nonzero(shares) > 1
    assert head.alpha_ is None  # every layer has its own


def test_late_fusion_leaves_out_a_layer_of_noise():
    X, y = animals(240, low=0.0, mid=1.0, high=1.2)
    head, ((row,)) = search_fusions(X, y, SLICES, fusions=["late"])
    assert row["layers"] == ["net/mid", "net/high"]
    assert (head.coef_[:, :4] == 0).all()
    assert head.layer_importance_["net/low"] == 0
    assert np.isinf(head.layer_penalties_["net/low"])


@pytest.mark.parametrize("n", [60, 20, 10])
@pytest.mark.parametrize("grouped", [False, True])
def test_selection_is_scored_by_choosing_and_fitting_anew_without_each_fold(n, grouped):
    X, Y, _ = numbers(n)
    groups = np.arange(n) // 2 if grouped else None
    head, row = search_fusions(X, Y, SLICES, groups, fusions=["selection"], random_state=3)
    assert row[0]["by"] == "cv"
    concat, scaled, weight = only("concat", X, Y, None, groups)
    seed = int(np.random.default_rng(3).integers(2**31))
    folds = inner_folds(Y[:, 0], 5, random_state=seed, groups=groups, is_class=False)

    def greatest(rows, alpha):
        coef, _ = by_hand.line(scaled[rows], Y[rows], weight[rows], alpha)
        return np.argsort(-((coef**2).sum(axis=1) * scaled[rows].var(axis=0)), kind="stable")

    losses, scores = {}, {}
    for count in (1, 3, 6):  # a tenth, a quarter and a half of 12 columns
        scores[count] = np.tile(Y.mean(axis=0), (n, 1))
        for _, test in folds:
            rows = np.setdiff1d(np.arange(n), test)
            alpha = concat.alpha_ * len(rows) / n
            own = greatest(rows, alpha)[:count]
            coef, intercept = by_hand.line(scaled[rows][:, own], Y[rows], weight[rows], alpha)
            scores[count][test] = scaled[test][:, own] @ coef + intercept
        losses[count] = ((scores[count] - Y) ** 2).mean()
    count = min(losses, key=losses.get)
    np.testing.assert_allclose(head.loo_prediction_, scores[count], atol=1e-7)
    assert row[0]["mse"] == pytest.approx(losses[count])
    kept = np.sort(greatest(np.arange(n), concat.alpha_)[:count])
    np.testing.assert_array_equal(np.flatnonzero(head.coef_.any(axis=0)), kept)
    assert row[0]["layers"] == list(SLICES)


def test_layers_of_different_widths_are_added_up_in_one_space():
    X, Y, _ = numbers()
    slices = {"a": slice(0, 2), "b": slice(2, 7), "c": slice(7, 12)}
    head, _ = search_fusions(X, Y, slices, fusions=["average"], random_state=3)
    scaled = X * by_hand.scaled(X, [(0, 2), (2, 7), (7, 12)], "shrunk", np.ones(40))
    seed = int(np.random.default_rng(3).integers(2**31))
    way = orthonormal_maps({"a": 2, "b": 5, "c": 5}, np.random.RandomState(seed))["a"]
    np.testing.assert_allclose(way @ way.T, np.eye(2), atol=1e-6)
    mapped = (scaled[:, :2] @ way + scaled[:, 2:7] + scaled[:, 7:]) / 3
    assert_refits(head, mapped, Y, np.ones(40), head.alpha_, by_hand.alone(40))


@pytest.mark.parametrize("fusion", EVERY)
def test_classes_are_scored_as_their_probabilities_say(fusion):
    X, y = animals()
    head, (row,) = search_fusions(X, y, SLICES, fusions=[fusion])
    own = head.loo_proba_[np.arange(60), np.searchsorted(head.classes_, y)]
    losses = -np.log(own)
    assert row["log_loss"] == pytest.approx(losses.mean())
    assert row["log_loss_se"] == pytest.approx(losses.std(ddof=1) / np.sqrt(60))
    right = head.classes_[head.loo_proba_.argmax(axis=1)] == y
    assert row["accuracy"] == pytest.approx(right.mean())
    assert (head.loo_log_loss_, head.loo_score_) == (row["log_loss"], row["accuracy"])
    assert head.fusion_ == fusion
    assert head.score(X, y) > 0.4


def test_what_the_table_says_of_left_out_rows_is_what_new_rows_get():
    X, y = animals(300)
    new, truth = animals(3000, seed=1)
    for fusion in EVERY:
        if fusion == "single:net/low":  # knows nothing
            continue
        head, (row,) = search_fusions(X, y, SLICES, fusions=[fusion])
        assert row["accuracy"] == pytest.approx(head.score(new, truth), abs=0.09)


# --- the table and the winner -------------------------------------------------------------------


def test_the_table_has_every_fusion_the_winners_first_then_by_loss():
    X, y = animals()
    winner, table = search_fusions(X, y, SLICES)
    assert sorted(row["fusion"] for row in table) == sorted(EVERY)
    assert {fusion.partition(":")[0] for fusion in EVERY} == set(FUSIONS)
    for row in table:
        assert list(row) == [
            "fusion", "layers", "by", "accuracy", "log_loss", "log_loss_se", "seconds", "tied",
        ]  # fmt: skip
        assert row["by"] == ("cv" if row["fusion"] == "selection" else "loo")
        assert set(row["layers"]) <= set(SLICES)
        assert row["seconds"] >= 0
    losses = [row["log_loss"] for row in table]
    assert losses[1:] == sorted(losses[1:])
    assert (winner.fusion_, winner.layers_) == (table[0]["fusion"], tuple(table[0]["layers"]))
    assert winner.loo_log_loss_ == losses[0]
    layers = {row["fusion"]: row["layers"] for row in table}
    assert layers["last"] == ["net/high"]
    assert layers["single:net/low"] == ["net/low"]
    assert layers["concat"] == layers["average"] == list(SLICES)


def test_numbers_have_r2_and_squared_error():
    X, Y, _ = numbers(outputs=1)
    winner, table = search_fusions(X, Y[:, 0], SLICES)
    assert list(table[0])[3:6] == ["r2", "mse", "mse_se"]
    assert winner.predict(X).shape == winner.loo_prediction_.shape == (40,)
    errors = (winner.loo_prediction_ - Y[:, 0]) ** 2
    assert table[0]["mse"] == pytest.approx(errors.mean())
    assert table[0]["mse_se"] == pytest.approx(errors.std(ddof=1) / np.sqrt(40))
    assert table[0]["r2"] == pytest.approx(1 - errors.mean() / Y.var())
    flat, both = search_fusions(X, Y[:, 0], SLICES), search_fusions(X, Y, SLICES)
    assert both[0].predict(X).shape == (40, 1)
    assert [row["mse"] for row in both[1]] == pytest.approx([row["mse"] for row in flat[1]])


def test_several_labels_are_numbers_of_0_and_1():
    X, y = animals()
    Y = by_hand.indicators(y).astype(int)
    winner, table = search_fusions(X, Y, SLICES)
    assert winner.predict(X).shape == (60, 3)
    assert table[0]["r2"] > 0.2


def test_whole_numbers_and_truth_values_are_classes():
    X, y = animals()
    for labels in (np.searchsorted(np.unique(y), y), y == "owl"):
        winner, table = search_fusions(X, labels, SLICES)
        assert "accuracy" in table[0]
        assert set(winner.predict(X)) == set(labels)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["class", "number"])
def test_the_winner_is_never_above_the_last_layer(seed, kind):
    rng = np.random.default_rng(seed)
    X, y = animals(40, seed, *rng.uniform(0, 1.5, 3))
    goal = y if kind == "class" else X @ rng.normal(size=12) * 0.3 + rng.normal(size=40)
    winner, table = search_fusions(X, goal, SLICES)
    name = "log_loss" if kind == "class" else "mse"
    last = next(row[name] for row in table if row["fusion"] == "last")
    assert table[0][name] <= last
    good = {row["fusion"].partition(":")[0] for row in table if row["tied"] and row[name] <= last}
    assert winner.fusion_.partition(":")[0] == min(good, key=FUSIONS.index)


def test_ties_are_those_within_one_standard_error_of_the_paired_difference():
    X, Y, _ = numbers(outputs=1)
    _, table = search_fusions(X, Y, SLICES)
    best = min(table, key=lambda row: row["mse"])["fusion"]
    errors = {row["fusion"]: (only_errors(X, Y, row["fusion"])) for row in table}
    tied = set()
    for fusion, own in errors.items():
        difference = own - errors[best]
        spread = difference.std(ddof=1) / np.sqrt(40)
        if fusion == best or difference.mean() <= spread:
            tied.add(fusion)
    assert {row["fusion"] for row in table if row["tied"]} == tied
    assert 1 <= len(tied) < len(table)


def only_errors(X, Y, fusion):
    head, _ = search_fusions(X, Y, SLICES, fusions=[fusion])
    return ((head.loo_prediction_ - Y) ** 2)[:, 0]


def test_of_two_layers_that_are_the_same_the_last_alone_wins():
    rng = np.random.default_rng(0)
    codes = np.arange(60) % 3
    layer = rng.normal(size=(60, 4)) + 2 * np.eye(4)[codes]
    slices = {"low": slice(0, 4), "high": slice(4, 8)}
    winner, table = search_fusions(
        np.hstack([layer, layer]), codes, slices,
        fusions=["concat", "single:low", "average", "late", "last"],
    )  # fmt: skip
    assert all(row["tied"] for row in table)
    assert winner.fusion_ == "last"


def tried(fusion: str, losses) -> Fused:
    losses = np.asarray(losses, float)
    nothing = np.zeros((len(losses), 2))
    return Fused(fusion, ("a",), [], np.zeros(2), nothing, Verdict(losses, losses.mean()))


@pytest.mark.parametrize(("shift", "expected"), [(0.05, "concat"), (0.2, "average")])
def test_the_simplest_tied_fusion_gives_way_where_the_last_layer_is_better(shift, expected):
    """Concat differs from the lowest loss by less than its spread, the last layer by more."""
    swing = np.tile([4.0, -4.0], 20)
    candidates = [
        tried("last", np.full(40, 5.1)),
        tried("concat", 5 + shift + swing),
        tried("average", np.full(40, 5.0)),
    ]
    ranked, tied = _ranked(candidates, NumberJudge(np.zeros((40, 2)), np.ones(40)))
    assert tied == {"concat", "average"}
    assert ranked[0].fusion == expected
    assert sorted(one.fusion for one in ranked) == ["average", "concat", "last"]


def test_a_layer_that_alone_knows_the_answer_mostly_wins_alone():
    wins = 0
    for seed in range(4):
        winner, table = search_fusions(*animals(150, seed, low=3.0, mid=0.0, high=0.0), SLICES)
        if winner.fusion_ == "single:net/low":
            wins += 1
            assert table[0]["layers"] == ["net/low"]
            assert (winner.coef_[:, 4:] == 0).all()
    assert wins >= 2


def test_the_winner_fits_as_it_does_when_it_is_the_only_one_tried():
    X, y = animals()
    for seed in (0, 1):
        winner, table = search_fusions(X, y, SLICES, random_state=seed)
        alone, own = search_fusions(X, y, SLICES, fusions=[winner.fusion_], random_state=seed)
        np.testing.assert_array_equal(alone.coef_, winner.coef_)
        np.testing.assert_array_equal(alone.loo_proba_, winner.loo_proba_)
        assert own[0]["log_loss"] == table[0]["log_loss"]


def test_the_same_seed_gives_the_same_table():
    X, y = animals()
    slices = {"a": slice(0, 2), "b": slice(2, 12)}
    first, second, third = (
        {row["fusion"]: row["log_loss"] for row in search_fusions(X, y, slices, random_state=s)[1]}
        for s in (0, 0, 1)
    )
    assert first == second
    assert first["concat"] == third["concat"]
    assert first["average"] != third["average"]  # a narrow layer's directions are drawn


def test_of_one_layer_there_is_one_fusion():
    X, y = animals()
    _, table = search_fusions(X, y, {"only": slice(0, 12)})
    assert [(row["fusion"], row["layers"]) for row in table] == [("last", ["only"])]


def test_only_the_fusions_asked_for_are_tried():
    X, y = animals()
    table = table_of(X, y, SLICES, fusions=["concat", "single:mid"])
    assert set(table) == {"concat", "single:mid"}
    assert table["single:mid"]["layers"] == ["net/mid"]


def test_groups_and_weights_reach_every_fusion():
    """Every row stands twice, as a group: as if it stood once with twice the weight."""
    X, y = animals(30)
    fusions = [name for name in EVERY if name not in ("selection", "weighted", "forward")]
    once = table_of(X, y, SLICES, None, np.full(30, 2.0), fusions=fusions)
    twice = table_of(X.repeat(2, axis=0), y.repeat(2), SLICES, np.arange(30).repeat(2),
                     fusions=fusions)  # fmt: skip
    apart = table_of(X.repeat(2, axis=0), y.repeat(2), SLICES, fusions=fusions)
    for fusion in set(fusions) - {"late"}:  # late counts rows to stay short of certainty
        assert twice[fusion]["log_loss"] == pytest.approx(once[fusion]["log_loss"], rel=1e-4)
    for fusion in fusions:
        assert apart[fusion]["log_loss"] < twice[fusion]["log_loss"]


def test_eight_layers_of_noise_cost_evidence_next_to_nothing_and_equal_penalties_visibly_more():
    rng = np.random.default_rng(0)

    def rows(n):
        codes = rng.integers(0, 5, n)
        signal = [rng.normal(size=(n, 16)) + 0.9 * centres[k][codes] for k in range(4)]
        return signal, [rng.normal(size=(n, 40)) for _ in range(8)], codes

    centres = rng.normal(size=(4, 5, 16)) * 0.3
    (signal, noise, y), (new, new_noise, truth) = rows(400), rows(4000)
    clean = {f"signal {k}": slice(16 * k, 16 * k + 16) for k in range(4)}
    full = clean | {f"noise {k}": slice(64 + 40 * k, 104 + 40 * k) for k in range(8)}
    scores = {}
    for name, slices, X, test in (
        ("clean", clean, np.hstack(signal), np.hstack(new)),
        ("full", full, np.hstack(signal + noise), np.hstack(new + new_noise)),
    ):
        for fusion in ("concat", "evidence"):
            head, _ = search_fusions(X, y, slices, fusions=[fusion])
            scores[fusion, name] = head.score(test, truth)
    assert scores["evidence", "full"] > scores["evidence", "clean"] - 0.01
    assert scores["concat", "full"] < scores["concat", "clean"] - 0.03


@pytest.mark.parametrize("n", [2, 3, 4])
def test_too_few_rows_to_judge_by_take_the_last_layer(n):
    X, _ = animals()
    winner, table = search_fusions(X[:n], np.arange(n), SLICES)
    assert winner.fusion_ == "last"
    assert {row["log_loss"] for row in table} == {None}
    assert {row["accuracy"] for row in table} == {None}
    assert np.isfinite(winner.predict_proba(X)).all()


def test_single_and_half_precision_give_nearly_the_same_table():
    X, y = animals(150)
    fusions = [name for name in EVERY if name != "selection"]
    exact = table_of(X, y, SLICES, fusions=fusions)
    for kind, near in ((np.float32, 1e-4), (np.float16, 5e-3)):
        less = table_of(X.astype(kind), y, SLICES, fusions=fusions)
        for fusion, row in exact.items():
            assert less[fusion]["log_loss"] == pytest.approx(row["log_loss"], abs=near)


ACCEPTED = (
    "last, single:net/low, single:net/mid, concat, average, weighted, evidence, late, forward, "
    "selection, single:LAYER."
)


@pytest.mark.parametrize(
    ("fusions", "sentence"),
    [
        (["concta"], f"unknown fusion 'concta'. Did you mean 'concat'? Accepted: {ACCEPTED}"),
        (["concat:x"], f"unknown fusion 'concat:x'. Did you mean 'concat'? Accepted: {ACCEPTED}"),
        (["single:net/hihg"], "unknown layer 'net/hihg'. Did you mean 'net/high'? Accepted: "
                              "net/low, net/mid, net/high."),
    ],
)  # fmt: skip
def test_names_that_nobody_knows_are_refused_with_the_nearest(fusions, sentence):
    with pytest.raises(UnknownNameError) as caught:
        search_fusions(*animals(), SLICES, fusions=fusions)
    assert str(caught.value) == sentence


def test_single_needs_its_layer():
    with pytest.raises(UnknownNameError, match="unknown fusion 'single'"):
        search_fusions(*animals(), SLICES, fusions=["single"])


def test_rows_and_labels_must_be_as_many():
    X, y = animals()
    with pytest.raises(InputError) as caught:
        search_fusions(X, y[:-1], SLICES)
    assert str(caught.value) == "X has 60 rows, but y has 59: give one label for each row."


def test_a_missing_value_is_named_as_by_the_heads():
    X, y = animals()
    X[7, 9] = np.nan
    with pytest.raises(InputError, match="NaN in layer 'net/high', row 7, column 9"):
        search_fusions(X, y, SLICES)
