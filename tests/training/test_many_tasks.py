"""Several targets in one model: each is what it would be alone, and what they share is shared."""

import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from stores import LAYERS, names

from pipeline.cache import EmbeddingStore
from pipeline.config import TrainOptions
from pipeline.errors import InputError, OptionError, UnknownNameError
from pipeline.fusion import FUSERS, make_fuser
from pipeline.heads import MOST_ROWS, LayerRidgeClassifier, Moments, Sharing
from pipeline.heads.looking import prepared_rows
from pipeline.heads.sharing import Kept
from pipeline.memory import used_memory
from pipeline.model import TransferModel, heldout_table
from pipeline.samples import Target
from pipeline.training import Task, evaluate, learn_tasks, plan_tasks, train, united
from pipeline.training.memory import MemoryPlan, plan_memory
from pipeline.training.rows import problems_of
from pipeline.training.tasks import groups_of

KINDS = np.array(["elk", "fox", "owl"])
TARGETS = ("kind", "parity", "size")


def columns_of(n: int, missing: float = 0.0, seed: int = 0) -> tuple[dict, dict]:
    """Two layers and three targets: the lower layer knows the size, the upper one the kind."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, n)
    low = rng.normal(size=(n, 6)).astype(np.float32)
    high = (rng.normal(size=(n, 5)) + 3 * np.eye(5)[codes]).astype(np.float32)
    size = low[:, 0] - 2.0 * low[:, 3] + 0.1 * rng.normal(size=n)
    parity = np.where(high[:, 3] + high[:, 4] + 0.5 * rng.normal(size=n) > 0, "even", "odd")
    targets = {"kind": KINDS[codes], "parity": parity, "size": size}
    hidden = {name: rng.random(n) < missing for name in targets}
    given = {
        name: [None if gone else value for value, gone in zip(values, hidden[name], strict=True)]
        for name, values in targets.items()
    }
    return {"net/low": low, "net/high": high}, given


def store_of(n: int = 150, missing: float = 0.0, **changed) -> EmbeddingStore:
    layers, targets = columns_of(n, missing)
    return EmbeddingStore.from_arrays(layers, names(n), targets | changed)


def scores(model: TransferModel, target: str, store: EmbeddingStore) -> np.ndarray:
    X, _ = store.matrix(list(model.layers))
    head = model.heads[target]
    return head.predict(X) if model.results[target].kind == "number" else head.predict_proba(X)


def compared(results) -> list:
    return [(one.fusion, one.layers, dict(one.score)) for one in results.fusions]


def nearly(ours: dict, theirs: dict) -> bool:
    """Equal but for rounding; None is a figure that nothing could be measured for."""
    return list(ours) == list(theirs) and all(
        value == theirs[name] or value == pytest.approx(theirs[name], rel=1e-6, abs=1e-9)
        for name, value in ours.items()
    )


@pytest.mark.parametrize("missing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("n", [20, 150])
def test_every_target_is_what_it_is_alone(n, missing):
    """Fewer rows than features and more; the same rows, nearly the same, and others."""
    store = store_of(n, missing)
    together = train(store, TrainOptions(target=TARGETS))
    assert list(together.heads) == list(together.results) == list(TARGETS)
    for target in TARGETS:
        alone = train(store, TrainOptions(target=target))
        ours, theirs = together.results[target], alone.results[target]
        assert (ours.n_train, ours.n_test) == (theirs.n_train, theirs.n_test)
        assert (ours.fusion, ours.head, ours.layers) == (theirs.fusion, theirs.head, theirs.layers)
        assert nearly(ours.figures, theirs.figures)
        for left, right in zip(compared(ours), compared(theirs), strict=True):
            assert left[:2] == right[:2]
            assert nearly(left[2], right[2])
        np.testing.assert_allclose(
            scores(together, target, store), scores(alone, target, store), rtol=1e-5, atol=1e-6
        )
        assert together.split.parts == alone.split.parts


def test_rows_without_a_label_do_not_count_for_that_target_alone():
    store = store_of(150, 0.5)
    model = train(store, TrainOptions(target=TARGETS))
    for target in TARGETS:
        labelled = Target.decide(target, store.targets[target].values).present
        for part, counted in (("train", "n_train"), ("test", "n_test")):
            rows = model.split.rows(store.ids, part)
            assert getattr(model.results[target], counted) == labelled[rows].sum()


def test_the_heads_take_the_union_of_the_layers_bottom_to_top():
    """scikit-learn's own head on the fuser of its own layer, fitted by hand, is the oracle."""
    store = store_of(
        150,
        0.3,
        size=[None] * 150,
        round=np.where(columns_of(150)[0]["net/low"][:, 0] > 0, "no", "yes"),
    )
    model = train(store, TrainOptions(target=("kind", "round")), head=LogisticRegression(C=0.1))
    used = {name: found.layers for name, found in model.results.items()}
    assert used == {"kind": ("net/high",), "round": ("net/low",)}
    assert model.layers == LAYERS
    X, slices = store.matrix(None)
    training = model.split.rows(store.ids, "train")
    for target, (layer,) in used.items():
        truth = Target.decide(target, store.targets[target].values)
        rows = training[truth.present[training]]
        own = X[:, slices[layer]]
        fuser = make_fuser("last", layer_slices=None, random_state=0).fit(own[rows])
        oracle = LogisticRegression(C=0.1).fit(
            fuser.transform(own[rows]), truth.values[rows].astype(str)
        )
        np.testing.assert_allclose(
            model.heads[target].predict_proba(X),
            oracle.predict_proba(fuser.transform(own)),
            atol=1e-6,
        )


@pytest.mark.parametrize("fusion", ["last", *FUSERS])
def test_a_fuser_finds_its_layers_among_more_of_them(fusion):
    rng = np.random.default_rng(1)
    layers = {"a": 3, "b": 4, "c": 2, "d": 4}
    values = {name: rng.normal(size=(30, width)) for name, width in layers.items()}
    narrow, wide = ({}, {})
    for slices, own in ((narrow, ["b", "d"]), (wide, list(layers))):
        ends = np.cumsum([layers[name] for name in own]).tolist()
        slices |= dict(zip(own, map(slice, [0, *ends], ends), strict=False))
    X = np.hstack([values["b"], values["d"]])
    fuser = make_fuser(fusion, layer_slices=narrow, random_state=0).fit(X, np.arange(30) % 2)
    every = np.hstack(list(values.values()))
    widened = fuser.widened(wide)
    np.testing.assert_allclose(widened.transform(every), fuser.transform(X), rtol=1e-12)
    assert widened.n_features_in_ == every.shape[1]
    assert fuser.n_features_in_ == X.shape[1]


def test_a_layer_ridge_gives_new_layers_no_weight():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(60, 5))
    head = LayerRidgeClassifier({"low": slice(0, 3), "top": slice(3, 5)}).fit(X, X[:, 0] > 0)
    wide = head.widened({"low": slice(0, 3), "new": slice(3, 7), "top": slice(7, 9)})
    every = np.hstack([X[:, :3], 1e3 * rng.normal(size=(60, 4)), X[:, 3:]])
    np.testing.assert_allclose(wide.predict_proba(every), head.predict_proba(X), rtol=1e-9)
    assert not wide.coef_[:, 3:7].any()


def test_a_saved_model_of_several_targets_comes_back(tmp_path):
    store = store_of(120, 0.3, tags=[("|", "big", "big|cat")[row % 3] for row in range(120)])
    options = TrainOptions(target=("kind", "size", "tags"), target_kind=("tags=multilabel",))
    model = train(store, options)
    assert {name: found.head for name, found in model.results.items()} == {
        "kind": "ridge", "size": "ridge", "tags": "logistic"
    }  # fmt: skip
    model.save(tmp_path / "model.safetensors")
    again = TransferModel.load(tmp_path / "model.safetensors")
    assert list(again.heads) == ["kind", "size", "tags"]
    for target, values in model.predict(store).items():
        np.testing.assert_array_equal(again.predict(store)[target], values)
    proba = again.predict_proba(store)
    assert list(proba) == ["kind", "tags"]
    np.testing.assert_array_equal(proba["kind"], model.predict_proba(store)["kind"])


def test_several_numbers_have_no_probabilities():
    store = store_of(60, age=np.arange(60.0))
    model = train(store, TrainOptions(target=("size", "age")))
    with pytest.raises(OptionError) as caught:
        model.predict_proba(store)
    assert str(caught.value) == (
        "targets 'size', 'age' are numbers, and have no probabilities. Use predict."
    )
    mixed = train(store, TrainOptions(target=("kind", "age")))
    assert list(mixed.predict_proba(store)) == ["kind"]


def test_the_winners_are_refitted_on_all_rows():
    store = store_of(150, 0.4)
    together = train(store, TrainOptions(target=TARGETS, refit=True))
    assert set(together.split.parts) == {"train"}
    for target in TARGETS:
        alone = train(store, TrainOptions(target=target, refit=True))
        ours = together.results[target]
        assert ours.n_train == Target.decide(target, store.targets[target].values).present.sum()
        assert ours.figures == pytest.approx(alone.results[target].figures, rel=1e-6)
        np.testing.assert_allclose(
            scores(together, target, store), scores(alone, target, store), rtol=1e-5, atol=1e-6
        )


def test_every_target_is_measured_on_its_own_labels():
    store = store_of(150, 0.4)
    model = train(store, TrainOptions(target=TARGETS))
    found = evaluate(model, store)
    for target in TARGETS:
        ours, theirs = found.results[target], model.results[target]
        assert ours.n_test == theirs.n_test
        assert ours.figures == pytest.approx(theirs.figures, rel=1e-6)


def test_held_out_predictions_have_a_line_for_each_target_with_a_label():
    store = store_of(150, 0.4)
    model = train(store, TrainOptions(target=TARGETS))
    header, rows = heldout_table(model, store)
    assert header == ["id", "target", "label", "prediction"]
    expected = []
    predicted = model.predict(store)
    for row in model.split.rows(store.ids, "test"):
        for target in TARGETS:
            truth = Target.decide(target, store.targets[target].values)
            if truth.present[row]:
                expected.append((store.ids[row], target, str(truth.values[row])))
                (cell,) = [r[3] for r in rows if r[:2] == [store.ids[row], target]]
                value = predicted[target][row]
                assert (
                    cell == value if isinstance(value, str) else float(cell) == pytest.approx(value)
                )
    assert [tuple(row[:3]) for row in rows] == expected


# What is shared


def test_outputs_are_added_to_moments_of_the_features():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(500, 7)), rng.normal(size=(500, 3))
    weight = rng.random(500)
    first = Moments.starting_at(X[0], [0.0]).add(X, X[:, :1], weight)
    second = first.of_features(Y[0]).add(X, Y, weight, outputs_only=True)
    whole = Moments.starting_at(X[0], Y[0]).add(X, Y, weight)
    for name in ("n_samples", "weight", "x", "y", "gram", "cross", "yy"):
        np.testing.assert_array_equal(getattr(second, name), getattr(whole, name))
    np.testing.assert_array_equal(
        first.cross, Moments.starting_at(X[0], [0.0]).add(X, X[:, :1], weight).cross
    )


def test_the_same_rows_are_multiplied_and_decomposed_once():
    rng = np.random.default_rng(0)
    X, sharing = rng.normal(size=(100, 4)), Sharing()
    one, other = (
        prepared_rows(lambda: iter([X]), Y, np.ones(100), (), random_state=0, sharing=sharing).rows
        for Y in (rng.normal(size=(100, 2)), rng.normal(size=(100, 1)))
    )
    assert one.moments.gram is other.moments.gram
    assert one.kept is other.kept
    weighted = prepared_rows(
        lambda: iter([X]), X[:, :1], np.full(100, 2.0), (), random_state=0, sharing=sharing
    ).rows
    assert weighted.moments.gram is not one.moments.gram
    np.testing.assert_allclose(
        weighted.moments.gram_about_mean(), 2 * one.moments.gram_about_mean()
    )
    assert weighted.kept is not one.kept
    some = prepared_rows(
        lambda: iter([X]), X[:, :1], np.ones(100), (), random_state=0, most=50, sharing=sharing
    ).rows
    assert some.kept is not one.kept


def test_only_what_has_a_name_is_kept_and_only_where_there_is_room():
    made = []

    def make():
        made.append(1)
        return len(made)

    kept = Kept()
    assert [
        kept.get("a", make),
        kept.get("a", make),
        kept.get(None, make),
        kept.get("b", make),
    ] == [1, 1, 2, 3]
    assert [Kept(keeping=False).get("a", make) for _ in range(2)] == [4, 5]


def test_tasks_of_the_same_rows_stand_together():
    target = Target.decide("y", ["a", "b"] * 5)
    every, some = np.arange(10), np.arange(0, 10, 3)
    tasks = {"a": Task(target, every), "b": Task(target, some), "c": Task(target, every.copy())}
    assert groups_of(tasks) == [["a", "c"], ["b"]]


def test_the_rows_are_read_once_and_given_to_each_target():
    store = store_of(80, 0.4)
    tasks = {}
    for name in TARGETS:
        target = Target.decide(name, store.targets[name].values)
        tasks[name] = Task(target, np.flatnonzero(target.present))
    every = Task(tasks["kind"].target, np.unique(np.concatenate([t.rows for t in tasks.values()])))
    problem_of = problems_of(store, list(LAYERS), None, tasks, MemoryPlan(True, MOST_ROWS, 0))
    for task in tasks.values():
        np.testing.assert_array_equal(problem_of(task).X, store.matrix(None, task.rows)[0])
    assert problem_of(every).X is problem_of(every).X


def test_rows_in_pieces_serve_several_targets():
    store, learnt = store_of(150), []
    tasks = {}
    for name in TARGETS:
        target = Target.decide(name, store.targets[name].values)
        tasks[name] = Task(target, np.flatnonzero(target.present))
    for in_memory in (True, False):
        problem_of = problems_of(
            store, list(LAYERS), None, tasks, MemoryPlan(in_memory, 1000, 10**9)
        )
        found = learn_tasks(
            tasks, problem_of, fusion="auto", head="auto", class_weight=None, random_state=0
        )
        learnt.append(united(found, LAYERS)[1])
    X, _ = store.matrix(None)
    for name in TARGETS:
        one, other = (heads[name].predict(X) for heads in learnt)
        assert (one == other).all() if one.dtype.kind == "U" else np.allclose(one, other, rtol=1e-3)


def test_what_makes_it_faster_is_done_without_where_memory_is_short():
    n, d, k = 10_000, 1_000, 3
    roomy = plan_memory(n, d, k, "1TB", parts=[n // 2], side_by_side=3, keeping=True)
    assert (roomy.in_memory, roomy.side_by_side, roomy.keeping) == (True, 3, True)
    found = set()
    for megabytes in range(200, 2_400, 50):
        limit = f"{(used_memory() + megabytes * 1e6) / 1e9:.4f}GB"
        plan = plan_memory(n, d, k, limit, parts=[n // 2], side_by_side=3, keeping=True)
        found.add((plan.in_memory, plan.side_by_side, plan.keeping))
    assert found == {(False, 1, False), (True, 1, False), (True, 1, True), (True, 3, True)}


def test_heads_that_count_their_own_threads_are_trained_one_after_the_other():
    rows = (np.arange(10), np.arange(5), np.arange(8))
    tasks = {str(len(own)): Task(Target.decide("y", ["a", "b"] * 5), own) for own in rows}
    assert plan_tasks(tasks, 5, "forest").side_by_side == 1
    assert plan_tasks(tasks, 5, LogisticRegression()).side_by_side == 1
    assert 1 <= plan_tasks(tasks, 5, "auto").side_by_side <= 3


# What is said, and what is refused


def test_every_target_says_what_it_is_and_what_was_chosen(caplog):
    caplog.set_level(logging.INFO, "pipeline")
    model = train(store_of(100), TrainOptions(target=("size", "kind")))
    said = caplog.messages
    for target in ("size", "kind"):
        assert any(line.startswith(f"target {target}: ") for line in said)
        found = model.results[target]
        counts = f"training on {found.n_train} rows, {found.n_test} held out (seed 0)"
        assert f"{target}: {counts}" in said
    chosen = [line for line in said if ": chose " in line]
    assert [line.partition(":")[0] for line in chosen] == ["size", "kind"]


def test_class_weights_go_to_the_targets_that_have_classes():
    store = store_of(150)
    options = {"class_weight": "balanced"}
    together = train(store, TrainOptions(target=("size", "parity"), **options))
    alone = {
        "size": train(store, TrainOptions(target="size")),
        "parity": train(store, TrainOptions(target="parity", **options)),
    }
    for target, model in alone.items():
        np.testing.assert_allclose(
            scores(together, target, store), scores(model, target, store), rtol=1e-5, atol=1e-6
        )
    unweighted = train(store, TrainOptions(target="parity"))
    assert (
        np.abs(scores(unweighted, "parity", store) - scores(together, "parity", store)).max() > 1e-4
    )


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"target": ("size", "age"), "class_weight": "balanced"}, OptionError,
         "target 'size': class weight balanced does not apply to the head ridge here."),
        ({"target": ("kind", "size"), "head": "lda"}, OptionError,
         "target 'size': head lda predicts classes, but the target is a number."),
        ({"target": ("kind", "tags"), "target_kind": ("tags=multilabel",), "head": "layer_ridge"},
         OptionError, "target 'tags': head layer_ridge predicts one class or number a row"),
        ({"target": ("kind", "tags"), "target_kind": ("tags=multilabel",), "fusion": "late"},
         OptionError, "target 'tags': fusion late is found by a ridge that predicts one class"),
        ({"target": ("kind", "sise")}, UnknownNameError,
         "unknown target 'sise'. Did you mean 'size'?"),
        ({"target": ("kind", "none")}, InputError,
         "target 'none' has no value in any of its 60 rows."),
        ({"target": ("kind", "same")}, InputError,
         "target 'same' has only one class, 'yes', in every row:"),
        ({"target": ("kind", "once"), "split_column": "part"}, InputError,
         "target 'once' has only one class, 'yes', in the 30 rows that are left to train on:"),
        ({"target": ("kind", "late"), "split_column": "part"}, InputError,
         "target 'late' has no label in any of the rows that are left to train on. Label some of "
         "them, or leave the target out."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_one_target_is_said_with_its_name(options, error, sentence):
    half = ["train"] * 30 + ["test"] * 30
    store = store_of(
        60, age=np.arange(60.0), tags=["big", "big|cat"] * 30, none=[None] * 60, part=half,
        same=["yes"] * 60, once=["yes"] * 30 + ["no"] * 30, late=[None] * 30 + ["yes", "no"] * 15,
    )  # fmt: skip
    with pytest.raises(error) as caught:
        train(store, TrainOptions(**options))
    assert str(caught.value).startswith(sentence)


def test_a_target_is_named_once():
    with pytest.raises(OptionError) as caught:
        TrainOptions(target=("kind", "size", "kind"))
    assert str(caught.value) == (
        "target 'kind' is named twice, but every target gets one head. Name it once."
    )


@pytest.mark.parametrize(
    ("given", "names"),
    [(None, ()), ("kind", ("kind",)), (["kind", "size"], ("kind", "size")), ((), ())],
)
def test_a_target_is_a_text_or_several(given, names):
    assert TrainOptions(target=given).target == names
