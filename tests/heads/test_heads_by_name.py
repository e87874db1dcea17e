"""Every head by its name: kinds, probabilities, small classes, files, chance."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.pipeline import make_pipeline

from pipeline.errors import OptionError, UnknownNameError
from pipeline.fusion import FUSERS, make_fuser
from pipeline.heads import HEADS, make_head
from pipeline.model.steps import pack_step, unpack_step

CLASS_ONLY = {"logistic", "lda"}
NUMBER = [name for name in HEADS if name not in CLASS_ONLY]
SLOW = {"boosting", "mlp", "linear", "forest"}
WEIGHTLESS = {"knn"}
SCORELESS = {"knn", "forest"}


def blobs(counts=(50, 40, 30), width=8, seed=0, apart=2.5):
    rng = np.random.default_rng(seed)
    y = np.repeat([f"class {code}" for code in range(len(counts))], counts)
    centres = np.random.default_rng(1).normal(size=(len(counts), width)) * apart
    X = centres[np.repeat(np.arange(len(counts)), counts)] + rng.normal(size=(len(y), width))
    order = rng.permutation(len(y))
    return X[order].astype(np.float32), y[order]


def chance_loss(y):
    shares = np.unique(y, return_counts=True)[1] / len(y)
    return -(shares * np.log(shares)).sum()


@pytest.mark.parametrize("name", HEADS)
def test_every_head_tells_classes_apart_with_probabilities(name):
    X, y = blobs()
    new, truth = blobs(seed=5)
    head = make_head(name, "class").fit(X, y)
    proba = head.predict_proba(new)
    assert head.classes_.tolist() == ["class 0", "class 1", "class 2"]
    assert proba.shape == (len(new), 3)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    assert (head.predict(new) == head.classes_[proba.argmax(axis=1)]).mean() > 0.98
    assert accuracy_score(truth, head.predict(new)) > 0.9
    assert log_loss(truth, proba) < 0.5 * chance_loss(truth)


@pytest.mark.parametrize("name", HEADS)
def test_two_classes_are_enough(name):
    X, y = blobs((30, 30))
    head = make_head(name, "class").fit(X, y)
    assert head.predict_proba(X).shape == (60, 2)
    assert head.score(X, y) > 0.9


@pytest.mark.parametrize("counts", [(30, 30), (30, 25, 20)])
@pytest.mark.parametrize("name", [name for name in HEADS if name not in SCORELESS])
def test_scores_of_classes_are_logits(name, counts):
    X, y = blobs(counts, apart=0.5)
    head = make_head(name, "class").fit(X, y)
    scores, logits = head.decision_function(X), np.log(head.predict_proba(X))
    if len(counts) == 2:
        np.testing.assert_allclose(scores, logits[:, 1] - logits[:, 0], atol=1e-4)
        return
    shared = (scores - logits).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(scores - shared, logits, atol=1e-4)


@pytest.mark.parametrize("name", sorted(SCORELESS))
def test_heads_without_scores_do_not_pretend_to_have_any(name):
    X, y = blobs((8, 8))
    for head in (make_head(name, "class"), make_head(name, "class").fit(X, y)):
        assert not hasattr(head, "decision_function")
    Y = (X[:, :1] > 0).astype(int)
    several = make_head(name, "multilabel").fit(X, Y)
    assert not hasattr(several, "decision_function")


@pytest.mark.parametrize("name", NUMBER)
def test_every_head_but_two_predicts_numbers_on_any_scale(name):
    X, _ = blobs()
    y = 1e4 + 500 * X[:, 0]
    assert make_head(name, "number").fit(X[:90], y[:90]).score(X[90:], y[90:]) > 0.4


@pytest.mark.parametrize("name", sorted(CLASS_ONLY))
def test_a_head_for_classes_says_which_heads_take_numbers(name):
    with pytest.raises(OptionError) as caught:
        make_head(name, "number")
    assert str(caught.value) == (
        f"head {name} predicts classes, but the target is a number. "
        f"Use {', '.join(NUMBER[:-1])} or {NUMBER[-1]}."
    )


@pytest.mark.parametrize("name", HEADS)
def test_several_labels_a_row_even_labels_that_all_or_none_have(name):
    X, _ = blobs((40, 40))
    Y = np.stack([X[:, 0] > 0, X[:, 1] > 0, np.ones(80), np.zeros(80)], axis=1).astype(int)
    head = make_head(name, "multilabel", labels=["a", "b", "all", "none"]).fit(X, Y)
    proba = head.predict_proba(X)
    assert head.classes_.tolist() == ["a", "b", "all", "none"]
    assert proba.shape == head.predict(X).shape == (80, 4)
    assert (proba[:, 2] == 1).all()
    assert (proba[:, 3] == 0).all()
    np.testing.assert_array_equal(head.predict(X), proba > 0.5)
    assert (head.predict(X) == Y).mean() > 0.85


@pytest.mark.parametrize("counts", [(12, 3, 2, 1), (2, 3), (1, 1)])
@pytest.mark.parametrize("name", HEADS)
def test_a_class_of_one_row_crashes_nothing(name, counts):
    X, y = blobs(counts)
    proba = make_head(name, "class").fit(X, y).predict_proba(X)
    assert proba.shape == (len(X), len(counts))
    assert np.isfinite(proba).all()


@pytest.mark.parametrize("rows", [2, 3, 5])
@pytest.mark.parametrize("name", NUMBER)
def test_few_numbers_crash_nothing(name, rows):
    X, _ = blobs()
    head = make_head(name, "number").fit(X[:rows], X[:rows, 0])
    assert np.isfinite(head.predict(X)).all()


@pytest.mark.parametrize("name", [name for name in HEADS if name not in WEIGHTLESS])
def test_balanced_classes_raise_the_rare_one(name):
    X, y = blobs((90, 6), apart=0.5)
    plain, balanced = (
        make_head(name, "class", class_weight=weight).fit(X, y).predict_proba(X)[:, 1].mean()
        for weight in (None, "balanced")
    )
    assert balanced > plain - 1e-3


def test_weights_of_classes_where_none_apply_are_refused():
    with pytest.raises(OptionError, match=r"does not apply to the head knn here\. Leave it"):
        make_head("knn", "class", class_weight="balanced")
    with pytest.raises(OptionError, match="does not apply to the head ridge here"):
        make_head("ridge", "number", class_weight="balanced")


@pytest.mark.parametrize("name", [name for name in HEADS if name not in SLOW])
def test_shuffled_labels_give_chance(name):
    accuracies, losses = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(300, 10)).astype(np.float32)
        y = np.repeat(["a", "b"], 150)[rng.permutation(300)]
        head = make_head(name, "class", random_state=seed).fit(X[:200], y[:200])
        accuracies.append(head.score(X[200:], y[200:]))
        losses.append(log_loss(y[200:], head.predict_proba(X[200:])))
    assert np.mean(accuracies) == pytest.approx(0.5, abs=0.1)
    if name != "lda":  # a generative model: sure of itself whatever the labels
        assert np.mean(losses) < 0.8


@pytest.mark.parametrize("name", HEADS)
def test_the_same_seed_gives_the_same_numbers(name):
    X, y = blobs((30, 20))
    first, second = (make_head(name, "class", random_state=7).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[(name, "class") for name in HEADS],
        *[(name, "number") for name in NUMBER],
        *[(name, "multilabel") for name in HEADS if name not in SLOW],
    ],
)
def test_heads_survive_pickle_and_the_model_file(name, kind):
    X, y = blobs((30, 25))
    goal = {"class": y, "number": X[:, 0], "multilabel": (X[:, :2] > 0).astype(int)}[kind]
    head = make_head(name, kind).fit(X, goal)
    tensors = {}
    entry = pack_step(head, "head", tensors)
    for back in (pickle.loads(pickle.dumps(head)), unpack_step(entry, tensors, ())):
        np.testing.assert_array_equal(back.predict(X), head.predict(X))
        if kind != "number":
            np.testing.assert_array_equal(back.predict_proba(X), head.predict_proba(X))
            np.testing.assert_array_equal(back.classes_, head.classes_)


@pytest.mark.parametrize("name", FUSERS)
def test_fusers_survive_the_model_file(name):
    X, y = blobs()
    slices = {"net/low": slice(0, 3), "net/high": slice(3, 8)}
    fuser = make_fuser(name, layer_slices=slices).fit(X, y)
    tensors = {}
    back = unpack_step(pack_step(fuser, "fuser", tensors), tensors, ())
    np.testing.assert_array_equal(back.transform(X), fuser.transform(X))
    assert back.get_params() == fuser.get_params()


@pytest.mark.parametrize("name", [name for name in HEADS if name not in SLOW])
@pytest.mark.parametrize("fusion", FUSERS)
def test_every_head_follows_every_fuser(fusion, name):
    X, y = blobs()
    slices = {"net/low": slice(0, 3), "net/high": slice(3, 8)}
    pipeline = make_pipeline(make_fuser(fusion, layer_slices=slices), make_head(name, "class"))
    assert pipeline.fit(X, y).score(X, y) > 0.85


def test_an_estimator_is_taken_as_it_is_but_cloned():
    own = LogisticRegression(C=3)
    head = make_head(own, "class")
    assert head is not own
    assert head.get_params() == own.get_params()


def test_what_is_no_head_is_said():
    with pytest.raises(UnknownNameError, match=r"unknown head 'logistc'\. Did you mean 'logistic'"):
        make_head("logistc", "class")
    with pytest.raises(OptionError, match=r"head is 3, but must be a name \(logistic, "):
        make_head(3, "class")


def test_a_head_of_ones_own_needs_an_entry_and_nothing_else(monkeypatch):
    monkeypatch.setitem(HEADS, "dummy", f"{__name__}:dummy")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    assert make_head("dummy", "class").strategy == "prior"


def dummy(kind, class_weight, random_state):
    return DummyClassifier()


def test_neither_dict_loads_torch():
    program = "import pipeline.heads, pipeline.fusion, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
