"""Stage 2: what is held out is never seen, what is chosen is said, and every kind works."""

import logging
from collections import Counter

import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from stores import LAYERS, names, store_of, vectors

from pipeline.cache import EmbeddingStore
from pipeline.config import TrainOptions
from pipeline.errors import InputError, OptionError, UnknownNameError
from pipeline.fusion import ConcatFusion
from pipeline.training import train

RIDGE = TrainOptions(head="ridge")
LABELS = np.array(["elk", "fox", "owl"])


def parameters(model) -> list[np.ndarray]:
    """All arrays of the fitted steps of the first target."""
    steps = next(iter(model.heads.values()))
    return [
        value
        for step in steps
        for _, value in sorted(vars(step).items())
        if isinstance(value, np.ndarray)
    ]


def assert_same_head(ours, theirs) -> None:
    for left, right in zip(parameters(ours), parameters(theirs), strict=True):
        if left.dtype.kind == "f":
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)
        else:
            np.testing.assert_array_equal(left, right)


def choices(model) -> list:
    results = next(iter(model.results.values()))
    return [(one.fusion, one.head, one.layers, dict(one.score)) for one in results.fusions]


def with_column(store, **columns):
    layers = {name: store.values(name) for name in store.layers}
    return EmbeddingStore.from_arrays(layers, store.ids, columns, specs=store.specs)


@pytest.mark.parametrize("fraction", [0.2, 0.4])
def test_held_out_rows_are_never_seen(fraction):
    """Their labels are turned round and their vectors are made absurd: nothing changes."""
    layers, codes = vectors(90)
    options = TrainOptions(head="ridge", test_fraction=fraction)
    clean = train(EmbeddingStore.from_arrays(layers, names(90), {"label": LABELS[codes]}), options)
    held = clean.split.rows(names(90), "test")
    assert len(held) == round(90 * fraction)
    columns = {"split": clean.split.parts, "label": LABELS[codes]}
    given = TrainOptions(head="ridge", split_column="split")
    poisoned_labels = LABELS[codes].copy()
    poisoned_labels[held] = LABELS[(codes[held] + 1) % 3]
    poisoned = {name: values.copy() for name, values in layers.items()}
    for values in poisoned.values():
        values[held] = 1e4
    for vectors_, labels in ((layers, poisoned_labels), (poisoned, LABELS[codes])):
        store = EmbeddingStore.from_arrays(vectors_, names(90), columns | {"label": labels})
        found = train(store, given)
        assert found.split.rows(names(90), "test").tolist() == held.tolist()
        assert_same_head(found, clean)
        assert choices(found) == choices(clean)
        assert found.results["label"].figures["accuracy"] < 0.5
    assert clean.results["label"].figures["accuracy"] > 0.9


def test_shuffled_labels_give_chance():
    figures = []
    for seed in range(10):
        labels = np.random.default_rng(seed).permutation(LABELS[np.arange(120) % 3])
        store = store_of(120, seed, label=labels)
        options = TrainOptions(head="ridge", fusion="concat", seed=seed)
        figures.append(train(store, options).results["label"].figures["accuracy"])
    assert abs(np.mean(figures) - 1 / 3) < 0.09


def test_held_out_figures_are_those_of_scikit_learn_on_the_held_out_rows():
    store = store_of(120, seed=3)
    model = train(store, RIDGE)
    results = model.results["label"]
    held = model.split.rows(store.ids, "test")
    X, _ = store.matrix(list(model.layers), held)
    truth = store.targets["label"].values[held].astype(str)
    head = model.heads["label"]
    proba = head.predict_proba(X)
    assert (results.n_train, results.n_test) == (96, 24)
    assert results.figures["accuracy"] == metrics.accuracy_score(truth, head.predict(X))
    assert results.figures["log_loss"] == pytest.approx(metrics.log_loss(truth, proba))
    assert results.figures["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(truth, head.predict(X))
    )


def test_the_head_is_fitted_on_the_training_rows_and_no_others():
    store = store_of(60)
    model = train(store, TrainOptions(fusion="concat"), head=Ridgeless())
    kept = model.split.rows(store.ids, "train")
    X, slices = store.matrix(None, kept)
    oracle = make_pipeline(ConcatFusion(slices), Ridgeless()).fit(
        X, store.targets["label"].values[kept].astype(str)
    )
    np.testing.assert_allclose(model.heads["label"][-1].coef_, oracle[-1].coef_, atol=1e-6)


class Ridgeless(LogisticRegression):
    """scikit-learn's own, so that an oracle can fit it too."""


class Watching(GaussianNB):
    """Writes down how many rows of each group it was given."""

    seen: list = []  # noqa: RUF012 - shared by clones, on purpose

    def fit(self, X, y, groups=None):
        self.seen.append(Counter(groups))
        return super().fit(X, y)


def test_groups_never_stand_on_both_sides_of_split_or_fold():
    Watching.seen.clear()
    patients = [f"p{row // 6}" for row in range(60)]
    store = store_of(label=LABELS[np.arange(60) % 3], patient=patients)
    model = train(store, TrainOptions(target="label", group="patient", fusion="last"),
                  head=Watching())  # fmt: skip
    sides = {
        part: {patients[row] for row in model.split.rows(store.ids, part)}
        for part in ("train", "test")
    }
    assert sides["test"]
    assert not sides["train"] & sides["test"]
    assert model.split.groups is not None
    assert model.split.crossing == 0
    *folds, whole = Watching.seen
    assert len(folds) == 3
    assert len(whole) == len(sides["train"])
    assert all(set(fold.values()) == {6} for fold in folds)
    assert all(len(fold) < len(whole) for fold in folds)


def test_copies_stay_on_one_side():
    layers, codes = vectors(30)
    twice = {name: np.repeat(values, 2, axis=0) for name, values in layers.items()}
    store = EmbeddingStore.from_arrays(twice, names(60), {"label": np.repeat(LABELS[codes], 2)})
    model = train(store, RIDGE)
    held = set(model.split.rows(store.ids, "test").tolist())
    assert held
    assert all((row ^ 1) in held for row in held)
    assert set(model.split.train_digests).isdisjoint(model.split.test_digests)


def test_nothing_held_out_leaves_figures_open_and_the_cross_validated_one():
    model = train(store_of(), TrainOptions(head="ridge", test_fraction=0))
    results = model.results["label"]
    assert set(results.figures) == {
        "accuracy", "balanced_accuracy", "macro_f1", "majority", "log_loss", "ece",
    }  # fmt: skip
    assert set(results.figures.values()) == {None}
    assert (results.n_train, results.n_test) == (60, 0)
    assert results.fusions[0].score["accuracy"] > 0.8
    assert set(model.split.parts) == {"train"}


def test_a_refit_learns_from_all_rows_and_keeps_the_figures():
    store = store_of()
    plain, refitted = train(store, RIDGE), train(store, TrainOptions(head="ridge", refit=True))
    whole = train(store, TrainOptions(head="ridge", test_fraction=0,
                                      fusion=plain.results["label"].fusion))  # fmt: skip
    ours, theirs = refitted.results["label"], plain.results["label"]
    assert ours.figures == theirs.figures
    assert choices(refitted) == choices(plain)
    assert (ours.n_train, ours.n_test) == (60, 12)
    assert set(refitted.split.parts) == {"train"}
    assert_same_head(refitted, whole)
    with pytest.raises(AssertionError):
        assert_same_head(refitted, plain)


@pytest.mark.parametrize("column", ["split", "fold"])
def test_a_given_split_is_taken(column):
    parts = ["train"] * 30 + ["valid"] * 15 + ["test"] * 15
    order = np.random.default_rng(0).permutation(60)
    parts = [parts[place] for place in order]
    store = store_of(label=LABELS[np.arange(60) % 3], **{column: parts})
    options = TrainOptions(head="ridge", target="label",
                           split_column=None if column == "split" else column)  # fmt: skip
    model = train(store, options)
    assert [model.split.rows(store.ids, part).tolist() for part in ("train", "val", "test")] == [
        [row for row in range(60) if parts[row] == word] for word in ("train", "valid", "test")
    ]
    assert (model.results["label"].n_train, model.results["label"].n_test) == (45, 15)


def test_a_word_that_is_no_part_is_named_with_its_row():
    store = store_of(label=LABELS[np.arange(60) % 3], fold=["train"] * 59 + ["tset"])
    with pytest.raises(InputError, match=r"the split of 059.jpg is 'tset'\. Accepted: train, val"):
        train(store, TrainOptions(split_column="fold", target="label"))


def test_a_class_of_one_sample_is_trained_on_and_said(caplog):
    labels = [*LABELS[np.arange(59) % 2], "yak"]
    with caplog.at_level(logging.INFO):
        model = train(store_of(label=labels), RIDGE)
    assert model.classes_.tolist() == ["elk", "fox", "yak"]
    assert model.split.untested == ("yak",)
    assert "too few rows to hold any out: yak" in caplog.text


def test_missing_labels_are_left_out():
    labels = LABELS[np.arange(60) % 3].astype(object)
    labels[::5] = None
    store = store_of(label=labels)
    model = train(store, RIDGE)
    results = model.results["label"]
    assert results.n_train + results.n_test == 48
    held = model.split.rows(store.ids, "test")
    assert not set(held.tolist()) & set(range(0, 60, 5))
    kept = [row for row in range(60) if row % 5 and row not in set(held.tolist())]
    only = EmbeddingStore.from_arrays(
        {name: store.values(name, kept) for name in LAYERS}, [store.ids[row] for row in kept],
        {"label": labels[kept]},
    )  # fmt: skip
    alone = train(only, TrainOptions(head="ridge", test_fraction=0, fusion=results.fusion))
    assert_same_head(alone, model)


def test_the_split_does_not_depend_on_the_target_that_is_trained():
    store = store_of(label=LABELS[np.arange(60) % 3], age=np.arange(60.0) ** 2)
    by_label = train(store, TrainOptions(target="label", head="ridge"))
    by_age = train(store, TrainOptions(target="age", head="ridge"))
    assert by_label.split == by_age.split


@pytest.mark.parametrize("head", ["auto", "ridge", "svm"])
def test_a_number_is_learnt(head):
    layers, _ = vectors(120)
    ages = 3 * layers["net/high"][:, 0] + layers["net/low"][:, 1] + 40
    store = EmbeddingStore.from_arrays(layers, names(120), {"age": ages})
    model = train(store, TrainOptions(head=head, fusion="concat"))
    results = model.results["age"]
    held = model.split.rows(store.ids, "test")
    found = model.predict(store)[held]
    truth = store.targets["age"].values[held]
    assert results.kind == "number"
    assert results.figures == {
        "r2": pytest.approx(metrics.r2_score(truth, found)),
        "mae": pytest.approx(metrics.mean_absolute_error(truth, found)),
    }
    assert results.figures["r2"] > 0.95


def test_several_labels_are_learnt():
    tags = [("|", "big", "big|cat")[row % 3] for row in range(90)]
    tags[7] = ""
    store = store_of(90, tags=tags)
    model = train(store, TrainOptions(target_kind=("tags=multilabel",), fusion="last"))
    results = model.results["tags"]
    held = model.split.rows(store.ids, "test")
    truth = np.array([[tag in tags[row].split("|") for tag in ("big", "cat")] for row in held])
    assert results.figures == {
        f"{name}_f1": pytest.approx(
            metrics.f1_score(truth, model.predict(store)[held], average=name)
        )
        for name in ("macro", "micro")
    }
    assert results.figures["macro_f1"] > 0.8
    assert results.n_train + results.n_test == 89


def test_whole_numbers_are_classes_of_their_own_type():
    store = store_of(label=np.arange(60) % 3)
    model = train(store, RIDGE)
    assert model.predict(store).dtype == np.int64
    assert model.results["label"].kind == "class"
    assert model.results["label"].figures["accuracy"] > 0.8


@pytest.mark.parametrize("fusion", ["last", "average", "weighted", "concat", "single:low",
                                    "single:net/high"])  # fmt: skip
def test_a_fusion_that_is_named_is_taken(fusion):
    model = train(store_of(), TrainOptions(head="lda", fusion=fusion))
    results = model.results["label"]
    assert (results.fusion, results.head) == (fusion, "lda")
    assert [one.fusion for one in results.fusions] == [fusion]
    expected = {"last": ["net/high"], "single:low": ["net/low"], "single:net/high": ["net/high"]}
    assert list(model.layers) == list(results.layers) == expected.get(fusion, list(LAYERS))
    assert model.predict(store_of()).shape == (60,)


@pytest.mark.parametrize(
    ("layers", "used"),
    [("all", list(LAYERS)), ("high", ["net/high"]), ("net/high, low", list(LAYERS)),
     (["net/low"], ["net/low"])],
)  # fmt: skip
def test_only_the_layers_asked_for_are_used_bottom_to_top(layers, used):
    model = train(store_of(), TrainOptions(head="ridge", fusion="concat"), layers=layers)
    assert list(model.layers) == used


@pytest.mark.parametrize("head", [GaussianNB(), LinearSVC(), LogisticRegression(C=0.1)])
def test_any_classifier_of_scikit_learn_is_a_head(head):
    store = store_of()
    model = train(store, TrainOptions(fusion="concat"), head=head)
    assert model.results["label"].head == type(head).__name__
    assert model.results["label"].figures["accuracy"] > 0.8
    np.testing.assert_allclose(model.predict_proba(store).sum(axis=1), 1, atol=1e-5)
    assert not hasattr(head, "classes_")


def test_balanced_classes_raise_the_recall_of_a_rare_one():
    rng = np.random.default_rng(0)
    codes = np.array([0] * 540 + [1] * 60)
    X = rng.normal(size=(600, 3)) + codes[:, None]
    store = EmbeddingStore.from_arrays({"net/x": X}, names(600), {"label": LABELS[codes]})
    for head in ("ridge", "logistic"):
        plain, balanced = (
            train(store, TrainOptions(head=head, class_weight=weight)).results["label"].figures
            for weight in ("none", "balanced")
        )
        assert balanced["balanced_accuracy"] > plain["balanced_accuracy"]


def test_the_reason_of_the_choice_is_logged(caplog):
    with caplog.at_level(logging.INFO):
        model = train(store_of(), RIDGE)
    best, *others = model.results["label"].fusions
    tied = ", ".join(one.fusion for one in others if one.tied)
    assert (
        f"chose {best.fusion} + ridge: accuracy {best.score['accuracy']:.3g}, log-loss "
        f"{best.score['log_loss']:.3g} by leave-one-out; it cannot be told apart from {tied}\n"
    ) in caplog.text
    assert "target label: class, 3 classes (smallest: elk, 20)" in caplog.text
    assert "training on 48 rows, 12 held out (seed 0)" in caplog.text


def test_too_few_rows_to_compare_are_said(caplog):
    layers, codes = vectors(3)
    with caplog.at_level(logging.INFO):
        train(EmbeddingStore.from_arrays(layers, names(3), {"label": LABELS[codes]}), RIDGE)
    assert "chose last + ridge: too few rows to compare\n" in caplog.text


def test_copies_across_a_given_split_are_counted_and_said(caplog):
    layers, codes = vectors(30)
    twice = {name: np.concatenate([values, values]) for name, values in layers.items()}
    store = EmbeddingStore.from_arrays(
        twice, names(60),
        {"label": [*LABELS[codes]] * 2, "split": ["train"] * 30 + ["test"] * 5 + ["train"] * 25},
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        train(store, RIDGE)
    assert "5 held-out rows have a copy, or a row of their group" in caplog.text


def test_two_trainings_are_the_same_and_another_seed_is_not():
    store = store_of()
    one, two = train(store, RIDGE), train(store, RIDGE)
    assert_same_head(one, two)
    assert one.split == two.split
    assert train(store, TrainOptions(head="ridge", seed=1)).split != one.split


def test_rows_in_another_order_give_the_same_split():
    layers, codes = vectors(60)
    order = np.random.default_rng(0).permutation(60)
    turned = EmbeddingStore.from_arrays(
        {name: values[order] for name, values in layers.items()},
        [names(60)[row] for row in order],
        {"label": LABELS[codes][order]},
    )
    assert train(turned, RIDGE).split == train(store_of(), RIDGE).split


@pytest.mark.parametrize(
    ("columns", "options", "sentence"),
    [
        ({"split": ["train"] * 60}, {},
         "the store has no labels. Put the images in one folder per class (photos/owl/1.jpg), or "
         "embed a table with a column 'path' and a column of labels."),
        ({"label": ["owl"] * 60}, {},
         "target 'label' has only one class, 'owl', in every row: there is nothing to tell apart. "
         "Give at least two classes, each in a folder of its own."),
        ({"label": ["owl"] * 59 + [None]}, {},
         "target 'label' has only one class, 'owl', in every row: there is nothing to tell apart. "
         "Give at least two classes, each in a folder of its own."),
        ({"age": [np.nan] + [2.5] * 59}, {},
         "target 'age' is 2.5 in every row: there is nothing to learn. Name another target."),
        ({"tags": ["a|b"] * 60}, {"target_kind": ("tags=multilabel",)},
         "target 'tags' is 'a|b' in every row: there is nothing to learn. Name another target."),
        ({"tags": ["|"] * 60}, {"target_kind": ("tags=multilabel",)},
         "target 'tags' is '' in every row: there is nothing to learn. Name another target."),
        ({"label": [None] * 60}, {},
         "target 'label' has no value in any of its 60 rows. At least two rows must be labelled: "
         "fill its cells, or name another target."),
        ({"age": range(60), "breed": ["a", "b"] * 30}, {},
         "there are 2 columns that could be the target: age, breed. One called 'label' needs no "
         "naming: name the target, or rename its column."),
        ({"age": ["1", "2", "x"] * 20}, {"target_kind": ("age=number",)},
         "target 'age' should be a number, but 20 cells are no numbers: 'x' (002.jpg), 'x' "
         "(005.jpg), 'x' (008.jpg), 'x' (011.jpg), 'x' (014.jpg) and 15 more. Accepted: decimal "
         "numbers with a point, empty for missing. Mend these cells, or ask for the kind class."),
        ({"label": ["elk", "owl"] * 30, "split": ["train", "test"] * 30}, {},
         "target 'label' has only one class, 'elk', in the 30 rows that are left to train on: "
         "there is nothing to tell apart. Give at least two classes, each in a folder of its own."),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_learnt_are_refused(columns, options, sentence):
    with pytest.raises(InputError) as caught:
        train(store_of(**columns), TrainOptions(**options))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": "labl"}, "unknown target 'labl'. Did you mean 'label'? Accepted: label, site."),
        ({"target_kind": ("lable=class",)}, "unknown target 'lable'. Did you mean 'label'?"),
        ({"target_kind": ("label=clas",)}, "unknown target kind 'clas'. Did you mean 'class'?"),
        ({"group": "sites"}, "unknown group 'sites'. Did you mean 'site'? Accepted: label, site."),
        ({"split_column": "sit"}, "unknown split column 'sit'. Did you mean 'site'?"),
        ({"head": "rigde"}, "unknown head 'rigde'. Did you mean 'ridge'? Accepted: auto, "),
        ({"fusion": "averag"}, "unknown fusion 'averag'. Did you mean 'average'? Accepted: auto"),
        ({"fusion": "single:net/hi"}, "unknown layer 'net/hi'. Did you mean 'net/high'?"),
    ],
)
def test_names_that_nobody_knows_are_refused_with_the_nearest(options, sentence):
    store = store_of(label=LABELS[np.arange(60) % 3], site=["a", "b"] * 30)
    with pytest.raises(UnknownNameError) as caught:
        train(store, TrainOptions(**options))
    assert str(caught.value).startswith(sentence)


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(UnknownNameError, match="unknown layer 'hihg'"):
        train(store_of(), RIDGE, layers="low,hihg")


def test_a_head_for_another_kind_is_refused():
    with pytest.raises(OptionError, match="head logistic predicts classes, but the target is a n"):
        train(store_of(age=np.arange(60.0)), TrainOptions(head="logistic"))
    with pytest.raises(OptionError, match="the head Ridge predicts numbers, but the target is of"):
        train(store_of(), head=Ridge())


def test_one_label_that_some_rows_have_is_learnt():
    store = store_of(tags=[("|", "|", "cat")[row % 3] for row in range(60)])
    model = train(store, TrainOptions(target_kind=("tags=multilabel",), fusion="last"))
    assert model.classes_.tolist() == ["cat"]
    assert model.results["tags"].figures["macro_f1"] > 0.8


def test_a_class_weight_is_refused_where_it_does_not_apply():
    with pytest.raises(OptionError, match="class weight balanced does not apply to the head"):
        train(store_of(age=np.arange(60.0)), TrainOptions(head="ridge", class_weight="balanced"))
