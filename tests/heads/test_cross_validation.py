"""Cross-validation of a fusion and a head: on which rows, and what any head gets."""

import itertools

import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron, Ridge
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from stores import LAYERS, vectors

from pipeline.errors import OptionError, UnknownNameError
from pipeline.fusion import ConcatFusion
from pipeline.heads import Problem, build, cross_validated, fit_head
from pipeline.heads.cross_validation import _part
from pipeline.heads.problem import layers_used
from pipeline.heads.scoring import no_score, predictions_of, score_of
from pipeline.heads.temperature import TemperatureClassifier
from pipeline.samples import Target, folds

SLICES = {"net/low": slice(0, 6), "net/high": slice(6, 11)}


def problem(kind: str = "class", n: int = 60, seed: int = 0, **extra) -> Problem:
    layers, codes = vectors(n, seed)
    X = np.concatenate(list(layers.values()), axis=1)
    cells = {
        "class": np.array(["elk", "fox", "owl"])[codes],
        "number": X[:, 6] * 2.0 + X[:, 0],
        "multilabel": [("|", "big", "big|cat")[code] for code in codes],
    }[kind]
    return Problem(X, SLICES, Target.decide("y", cells, kind), **extra)


class Oracle(ClassifierMixin, BaseEstimator):
    """A head that writes down which rows it was given."""

    seen: list = []  # noqa: RUF012 - shared by clones, on purpose

    def fit(self, X, y, sample_weight=None, groups=None):
        self.classes_ = np.unique(y)
        type(self).seen.append((np.asarray(X), np.asarray(y), sample_weight, groups))
        return self

    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))

    def predict(self, X):
        return self.classes_[np.zeros(len(X), int)]


@pytest.fixture
def seen():
    Oracle.seen.clear()
    return Oracle.seen


def scored(given, fusion="concat", head="logistic", *, class_weight=None, random_state=0):
    return cross_validated(
        given, fusion, head, class_weight=class_weight, random_state=random_state
    )


@pytest.mark.parametrize("fusion", ["last", "single:low", "average", "weighted", "concat"])
def test_a_candidate_says_what_was_scored_and_how(fusion):
    found = scored(problem(), fusion)
    assert (found.fusion, found.head, found.by) == (fusion, "logistic", "cv")
    one = {"last": ("net/high",), "single:low": ("net/low",)}
    assert found.layers == one.get(fusion, tuple(LAYERS))
    assert found.seconds > 0
    assert found.score["log_loss"] > 0


@pytest.mark.parametrize("kind", ["class", "number", "multilabel"])
def test_scores_are_those_of_plain_cross_validation(kind):
    given = problem(kind)
    found = scored(given, head=_plain(kind), random_state=7)
    outputs, rows = [], []
    for train, test in folds(given.target, 3, seed=7):
        pipe = make_pipeline(ConcatFusion(SLICES), _plain(kind, wrapped=True))
        pipe.fit(given.X[train], given.y[train])
        outputs.append(_output(pipe, given.X[test], kind))
        rows.append(test)
    output, truth = np.concatenate(outputs), given.y[np.concatenate(rows)]
    if kind == "number":
        errors = (truth - output) ** 2
        assert found.score["r2"] == pytest.approx(r2_score(truth, output))
    elif kind == "class":
        errors = -np.log(output[np.arange(60), np.searchsorted(["elk", "fox", "owl"], truth)])
        assert found.score["log_loss"] == pytest.approx(log_loss(truth, output))
        best = np.array(["elk", "fox", "owl"])[output.argmax(axis=1)]
        assert found.score["accuracy"] == pytest.approx(accuracy_score(truth, best))
    else:
        errors = -np.log(np.where(truth == 1, output, 1 - output)).mean(axis=1)
        assert found.score["accuracy"] == pytest.approx(((output > 0.5) == truth).mean())
    loss = "mse" if kind == "number" else "log_loss"
    assert found.score[loss] == pytest.approx(errors.mean())
    assert found.score[f"{loss}_se"] == pytest.approx(errors.std(ddof=1) / np.sqrt(60))


def _plain(kind, *, wrapped=False):
    if kind == "number":
        return Ridge()
    if kind == "multilabel" and wrapped:
        from sklearn.multiclass import OneVsRestClassifier

        return OneVsRestClassifier(LogisticRegression())
    return LogisticRegression()


def _output(pipe, X, kind):
    return pipe.predict(X) if kind == "number" else pipe.predict_proba(X)


def test_no_row_helps_to_predict_itself(seen):
    scored(problem(), head=Oracle())
    assert [len(y) for _, y, _, _ in seen] == [40, 40, 40]


def test_groups_copies_and_weights_reach_folds_and_head(seen):
    """Rows 0 and 1 are a group, 1 and 2 one content: the three are never parted."""
    digests = [bytes([row]) * 16 for row in range(60)]
    digests[2] = digests[1]
    groups = ["a", "a", *[None] * 58]
    weight = np.arange(60.0)
    given = problem(groups=groups, digests=digests, sample_weight=weight)
    assert given.families[0] == given.families[1] == given.families[2]
    assert len(set(given.families)) == 58
    scored(given, head=Oracle())
    for _, _, weights, families in seen:
        inside = {int(w) for w in weights} & {0, 1, 2}
        assert inside in (set(), {0, 1, 2})
        alone = len(weights) - 3 * bool(inside)
        assert families is None if not inside else len(set(families)) == alone + 1


def test_rows_without_kin_have_no_families():
    assert problem().families is None
    alone = [bytes([row]) * 16 for row in range(60)]
    assert problem(digests=alone, groups=[None, float("nan"), ""] * 20).families is None


def test_weights_are_refused_by_a_head_that_cannot_weigh():
    given = problem(sample_weight=np.ones(60))
    with pytest.raises(OptionError, match="KNeighborsRegressor cannot weigh rows"):
        scored(problem("number", sample_weight=given.sample_weight), head=KNeighborsRegressor())


def test_candidates_are_compared_on_a_part_that_holds_every_class():
    rng = np.random.default_rng(0)
    codes = np.zeros(20_000, int)
    codes[:5] = [1, 1, 1, 2, 2]  # rare ones would be missed
    labels = np.array(["elk", "fox", "owl"])[rng.permutation(codes)]
    big = Problem(np.zeros((20_000, 1), np.float32), {"a/b": slice(0, 1)},
                  Target.decide("y", labels, "class"))  # fmt: skip
    part = _part(big, 0)
    assert len(part.target) == 6_000
    assert part.target.counts["fox"] >= 2
    assert part.target.counts["owl"] == 2
    assert _part(part, 0) is part
    assert not np.array_equal(_part(big, 1).target.values, part.target.values)


def test_only_six_thousand_rows_are_compared_on_but_all_are_fitted(seen):
    n = 6_600
    X = np.zeros((n, 1), np.float32)
    big = Problem(X, {"a/b": slice(0, 1)}, Target.decide("y", ["elk", "owl"] * (n // 2)))
    head = Oracle()
    found = scored(big, head=head)
    assert [len(y) for _, y, _, _ in seen] == [4_000] * 3
    fit_head(build(found.fusion, head, big, class_weight=None, random_state=0), big)
    assert len(seen[-1][1]) == n


def test_a_class_of_one_row_is_trained_on_in_every_fold(seen):
    labels = ["elk"] * 10 + ["fox"] * 10 + ["owl"]
    given = Problem(np.zeros((21, 1), np.float32), {"a/b": slice(0, 1)}, Target.decide("y", labels))
    scored(given, head=Oracle())
    assert [sorted(set(y)) for _, y, _, _ in seen] == [["elk", "fox", "owl"]] * 3


def test_too_few_rows_to_compare_leave_the_score_empty():
    given = problem(n=3)  # one row of each class: none can be tested
    assert scored(given).score == no_score("class")
    assert set(no_score("class")) == {"accuracy", "log_loss", "log_loss_se"}


def test_many_small_classes_are_no_matter_of_doubt():
    """scikit-learn warns of more than 20 classes with less than two rows each."""
    labels = [f"c{row // 2:02}" for row in range(44)] + [f"d{row}" for row in range(30)]
    X = np.random.default_rng(0).normal(size=(74, 4)).astype(np.float32)
    given = Problem(X, {"a/b": slice(0, 4)}, Target.decide("y", labels, "class"))
    assert scored(given).score["accuracy"] >= 0


@pytest.mark.parametrize(
    "head",
    [GaussianNB(), LinearSVC(), SVC(), Perceptron(), GridSearchCV(LinearSVC(), {"C": [0.1, 1]}),
     make_pipeline(StandardScaler(), SVC()), DummyClassifier()],
    ids=lambda head: type(head).__name__,
)  # fmt: skip
def test_any_classifier_serves_and_gives_probabilities(head):
    given = problem()
    before = repr(head)
    found = scored(given, head=head)
    fitted = fit_head(build("concat", head, given, class_weight=None, random_state=0), given)
    proba = fitted.predict_proba(given.X)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    assert found.head == type(head).__name__
    assert repr(head) == before  # a clone was fitted
    assert (fitted.predict(given.X) == fitted.classes_[proba.argmax(axis=1)]).all()


def test_any_regressor_serves_a_number_and_any_classifier_several_labels():
    found = scored(problem("number"), head=LinearRegression())
    assert found.score["r2"] > 0.9
    found = scored(problem("multilabel"), head=LinearSVC())
    assert found.score["accuracy"] > 0.8


class Silent(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        return self

    def predict(self, X):
        return X


@pytest.mark.parametrize(
    ("head", "kind", "sentence"),
    [
        (Ridge(), "class", "the head Ridge predicts numbers, but the target is of kind class. "
                           "Give a classifier, or a name: auto."),
        (GaussianNB(), "number", "the head GaussianNB predicts classes, but the target is of kind "
                                 "number. Give a regressor, or a name: auto."),
        (Silent(), "class", "the head Silent gives neither probabilities nor scores. Give a "
                            "classifier with predict_proba or decision_function, or a name: auto."),
    ],
)  # fmt: skip
def test_a_head_that_cannot_serve_is_refused(head, kind, sentence):
    with pytest.raises(OptionError) as caught:
        scored(problem(kind), head=head)
    assert str(caught.value) == sentence


def test_class_weights_reach_an_estimator_that_has_them_and_no_other():
    built = build("concat", LogisticRegression(), problem(), class_weight="balanced",
                  random_state=0)  # fmt: skip
    assert built[-1].class_weight == "balanced"
    built = build("concat", LinearSVC(), problem(), class_weight="balanced", random_state=5)
    assert isinstance(built[-1], TemperatureClassifier)
    assert (built[-1].estimator.class_weight, built[-1].random_state) == ("balanced", 5)
    with pytest.raises(OptionError, match="class weight balanced does not apply to the head Gauss"):
        scored(problem(), head=GaussianNB(), class_weight="balanced")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"head": "logistc"}, "unknown head 'logistc'. Did you mean 'logistic'? Accepted: auto, "),
        ({"fusion": "concta"}, "unknown fusion 'concta'. Did you mean 'concat'? Accepted: auto, "),
        ({"fusion": "single:net/hihg"}, "unknown layer 'net/hihg'. Did you mean 'net/high'?"),
    ],
)
def test_names_that_nobody_knows_are_refused_with_the_nearest(options, sentence):
    with pytest.raises(UnknownNameError) as caught:
        scored(problem(), **options)
    assert str(caught.value).startswith(sentence)


def test_something_that_is_no_head_is_refused():
    with pytest.raises(OptionError, match="head is 3, but must be a name"):
        scored(problem(), head=3)


def test_a_single_layer_is_named_in_full_or_by_its_tap():
    assert layers_used("single:high", list(LAYERS)) == ["net/high"]
    assert layers_used("single:net/low", list(LAYERS)) == ["net/low"]
    assert layers_used("last", list(LAYERS)) == ["net/high"]


def test_a_layer_of_two_backbones_must_be_named_in_full():
    with pytest.raises(UnknownNameError, match=r"unknown layer 'x'\. .*Accepted: a/x, b/x"):
        layers_used("single:x", ["a/x", "b/x"])


def test_rows_and_layers_are_kept_side_by_side():
    whole = problem(groups=list(range(60)), digests=[bytes(16)] * 60, sample_weight=np.arange(60.0))
    rows = np.array([5, 3])
    part = whole.subset(rows)
    np.testing.assert_array_equal(part.X, whole.X[rows])
    assert (part.groups, part.sample_weight.tolist()) == ([5, 3], [5.0, 3.0])
    assert part.target.values.tolist() == whole.target.values[rows].tolist()
    turned = whole.restricted(["net/high"])
    np.testing.assert_array_equal(turned.X, whole.X[:, 6:])
    assert dict(turned.layer_slices) == {"net/high": slice(0, 5)}
    assert whole.restricted(list(SLICES)) is whole


def test_scores_of_classes_that_a_fold_lacks_stand_in_their_columns():
    target = Target.decide("y", ["elk", "fox", "owl"])
    fitted = LogisticRegression().fit([[0.0], [1.0]], ["elk", "owl"])
    proba = predictions_of(fitted, np.array([[0.0]]), target)
    assert proba[0, 1] == 0
    np.testing.assert_allclose(proba[0, [0, 2]], fitted.predict_proba([[0.0]])[0])


def test_scores_of_one_row_have_no_spread():
    one = Target.decide("y", [2.5], "number")
    assert score_of(one, np.array([1.5])) == {"r2": None, "mse": 1.0, "mse_se": None}
    label = Target.decide("y", ["elk", "owl"]).subset([0])
    assert score_of(label, np.array([[1.0, 0.0]])) == {
        "accuracy": 1.0, "log_loss": 0.0, "log_loss_se": None,
    }  # fmt: skip


@pytest.mark.parametrize("seeds", [range(12)])
def test_shuffled_labels_score_as_chance(seeds):
    accuracies = []
    for seed in seeds:
        given = problem(n=90, seed=seed)
        labels = np.random.default_rng(seed).permutation(given.target.values)
        shuffled = Problem(given.X, SLICES, Target.decide("y", labels))
        accuracies.append(scored(shuffled, head="lda").score["accuracy"])
    assert abs(np.mean(accuracies) - 1 / 3) < 0.06


@pytest.mark.parametrize(
    "settings", [{"transform_output": "pandas"}, {"enable_metadata_routing": True}]
)
def test_global_settings_of_scikit_learn_change_nothing(settings):
    given = problem(groups=list(itertools.chain(*[[row] * 2 for row in range(30)])))
    plain = scored(given)
    with sklearn.config_context(**settings):
        found = scored(given)
    assert found.score == plain.score
