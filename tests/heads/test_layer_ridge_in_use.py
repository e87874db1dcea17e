"""The layer-aware ridge in use: pieces, streams, calibration, files, and what it refuses."""

import pickle

import numpy as np
import pytest
import ridge_by_hand as by_hand
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.utils.estimator_checks import parametrize_with_checks

from pipeline.errors import InputError, OptionError, UnknownNameError
from pipeline.heads.layer_ridge import LayerRidgeClassifier, LayerRidgeRegressor

SLICES = {"net/low": slice(0, 4), "net/mid": slice(4, 7), "net/high": slice(7, 12)}
D = 12


def animals(n: int = 60, seed: int = 0, classes: int = 3, apart: float = 2.0):
    """Three layers, of which the upper one knows the class, and the class."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    X = rng.normal(size=(n, D)) * np.linspace(0.5, 2, D) + np.linspace(-5, 9, D)
    X[:, 7:] += apart * np.eye(5)[codes]
    return X, np.array(["elk", "fox", "owl", "yak"])[codes]


def classifier(**options) -> LayerRidgeClassifier:
    return LayerRidgeClassifier(SLICES, **options)


def assert_same(ours, theirs, X, rtol: float = 1e-7):
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=rtol)
    np.testing.assert_allclose(ours.loo_proba_, theirs.loo_proba_, atol=rtol)
    assert ours.alpha_ == pytest.approx(theirs.alpha_)
    assert ours.temperature_ == pytest.approx(theirs.temperature_, rel=1e-5)
    assert ours.layer_importance_ == pytest.approx(theirs.layer_importance_)
    assert ours.loo_log_loss_ == pytest.approx(theirs.loo_log_loss_)


@parametrize_with_checks(
    [
        LayerRidgeClassifier(calibration="matrix"),
        LayerRidgeClassifier(penalties="uniform", scaling="standard"),
        LayerRidgeRegressor(penalties="uniform", scaling="trace"),
    ]
)
def test_every_setting_is_what_scikit_learn_asks_for(estimator, check):
    check(estimator)


# --- pieces and streams -------------------------------------------------------------------------


@pytest.mark.parametrize("n", [60, 18, 9])
@pytest.mark.parametrize("size", [1, 7, 60])
def test_pieces_of_any_size_are_fitted_to_what_the_whole_is(n, size):
    X, y = animals(n)
    weight = np.random.default_rng(1).uniform(0.5, 2, n)
    groups = np.arange(n) // 2
    whole = classifier().fit(X, y, weight, groups)

    def chunks():
        return ((X[at : at + size], y[at : at + size]) for at in range(0, n, size))

    pieces = classifier().fit_chunks(chunks, weight, groups)
    assert_same(pieces, whole, X)
    assert pieces.n_features_in_ == D


def test_numbers_come_in_pieces_too():
    X, _ = animals()
    Y = X[:, :2] * [3.0, -1.0]
    whole = LayerRidgeRegressor(SLICES).fit(X, Y)
    pieces = LayerRidgeRegressor(SLICES).fit_chunks(lambda: zip(X[None], Y[None], strict=True))
    np.testing.assert_allclose(pieces.coef_, whole.coef_)
    parts = LayerRidgeRegressor(SLICES)
    for at in range(0, 60, 25):
        parts.partial_fit(X[at : at + 25], Y[at : at + 25])
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(parts.loo_prediction_, whole.loo_prediction_, rtol=1e-6)


@pytest.mark.parametrize("size", [5, 13, 60])
def test_rows_that_come_bit_by_bit_are_fitted_to_what_all_at_once_are(size):
    X, y = animals()
    weight = np.random.default_rng(1).uniform(0.5, 2, 60)
    stream = classifier()
    for at in range(0, 60, size):
        own = slice(at, at + size)
        stream.partial_fit(X[own], y[own], weight[own], classes=["elk", "fox", "owl"])
    assert_same(stream, classifier().fit(X, y, weight), X, rtol=1e-6)


def test_rows_may_come_class_by_class_when_the_classes_are_named():
    X, y = animals()
    stream = classifier()
    for label in ("owl", "elk", "fox"):
        stream.partial_fit(X[y == label], y[y == label], classes=["elk", "fox", "owl"])
    order = np.concatenate([np.flatnonzero(y == label) for label in ("owl", "elk", "fox")])
    assert_same(stream, classifier().fit(X[order], y[order]), X, rtol=1e-6)


def test_a_row_alone_in_its_class_by_its_weight_is_not_judged_in_a_stream_either():
    X, y = animals()
    weight = np.where((y == "owl") & (np.arange(60) > 3), 0.0, 1.0)
    stream = classifier().partial_fit(X, y, weight)
    assert stream.loo_log_loss_ == pytest.approx(classifier().fit(X, y, weight).loo_log_loss_)


def test_a_fit_forgets_the_stream_before_it():
    X, y = animals()
    used = classifier().partial_fit(X[:30], y[:30]).fit(X[30:], y[30:])
    assert_same(used, classifier().fit(X[30:], y[30:]), X)
    used.partial_fit(X[:30], y[:30])
    assert_same(used, classifier().fit(X[:30], y[:30]), X)


@pytest.mark.parametrize("grouped", [False, True])
def test_of_many_rows_some_are_looked_at_and_the_rest_are_left_out_by_the_same_formula(grouped):
    X, y = animals(100)
    groups = [f"g{row // 4}" if row < 40 else None for row in range(100)] if grouped else None
    whole = classifier(alphas=[2.0]).fit(X, y, groups=groups)
    part = classifier(alphas=[2.0], random_state=5)
    part.n_features_in_ = D
    part.fit_passes(lambda: iter([X[:33], X[33:]]), y, groups=groups, most=30)
    np.testing.assert_allclose(part.coef_, whole.coef_, atol=1e-10)
    unseen = np.isnan(part.loo_proba_).any(axis=1)
    if grouped:  # groups that were not looked at stay unknown, whole ones at that
        assert 0 < unseen[:40].sum() < 40
        assert (unseen[:40].reshape(10, 4) == unseen[:40:4, None]).all()
        assert not unseen[40:].any()
    else:
        assert not unseen.any()
    np.testing.assert_allclose(
        by_hand.scores_of(part.loo_proba_[~unseen], part.temperature_),
        by_hand.scores_of(whole.loo_proba_[~unseen], whole.temperature_),
        atol=1e-8,
    )


def test_which_rows_are_looked_at_is_a_matter_of_the_seed():
    X, y = animals(100, apart=1)

    def found(seed):
        head = classifier(random_state=seed)
        head.n_features_in_ = D
        return head.fit_passes(lambda: iter([X]), y, most=30).loo_log_loss_

    assert found(1) == found(1) != found(2)


# --- calibration --------------------------------------------------------------------------------


def confused(n: int, seed: int):
    """Elks are now and then taken for foxes, and never the other way round; owls are plain."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, n)
    shown = np.where((codes == 0) & (rng.random(n) < 0.45), 1, codes)
    X = rng.normal(size=(n, D)) * 0.3
    X[:, 7:10] += 3 * np.eye(3)[shown]
    return X, codes


@pytest.mark.parametrize("classes", [3, 2])
def test_the_matrix_lowers_the_log_loss_of_new_rows_where_classes_are_confused(classes):
    X, y = confused(900, 0)
    new, truth = confused(3000, 1)
    X, y, new, truth = X[y < classes], y[y < classes], new[truth < classes], truth[truth < classes]
    plain = classifier().fit(X, y)
    fitted = classifier(calibration="matrix").fit(X, y)
    assert fitted.calibration_.matrix.shape == (classes, classes)
    assert fitted.calibration_.offset.shape == (classes,)
    before, after = (log_loss(truth, head.predict_proba(new)) for head in (plain, fitted))
    assert after < 0.99 * before
    assert fitted.calibration_.log_loss < plain.loo_log_loss_
    assert after == pytest.approx(fitted.calibration_.log_loss, rel=0.15)
    np.testing.assert_array_equal(fitted.coef_, plain.coef_)
    np.testing.assert_array_equal(
        fitted.predict(new), fitted.classes_[fitted.predict_proba(new).argmax(axis=1)]
    )


def test_the_matrix_is_refused_on_few_rows_and_where_it_brings_nothing():
    X, y = confused(40, 0)
    few = classifier(calibration="matrix").fit(X, y)
    alike = classifier(calibration="matrix").fit(*animals(300, apart=1))
    for head in (few, alike):
        assert head.calibration_ is None
    np.testing.assert_allclose(few.predict_proba(X), classifier().fit(X, y).predict_proba(X))


def test_probabilities_of_new_rows_mean_what_they_say():
    X, y = animals(300, apart=1)
    new, truth = animals(3000, seed=1, apart=1)
    head = classifier().fit(X, y)
    proba = head.predict_proba(new)
    top, right = proba.max(axis=1), head.predict(new) == truth
    bins = np.minimum((top * 15).astype(int), 14)
    gaps = [abs(right[bins == k].sum() - top[bins == k].sum()) for k in range(15)]
    assert sum(gaps) / len(new) < 0.05
    assert log_loss(truth, proba) == pytest.approx(head.loo_log_loss_, rel=0.1)


# --- types, files, fewer columns ----------------------------------------------------------------


@pytest.mark.parametrize(("kind", "near"), [(np.float32, 1e-4), (np.float16, 2e-2)])
def test_rows_of_less_precision_give_nearly_the_same_predictions(kind, near):
    X, y = animals()
    head = classifier().fit(X, y)
    np.testing.assert_allclose(head.predict_proba(X.astype(kind)), head.predict_proba(X), atol=near)
    less = classifier().fit(X.astype(kind), y)
    np.testing.assert_allclose(less.predict_proba(X.astype(kind)), head.predict_proba(X), atol=0.05)


def test_plain_lists_and_whole_numbers_are_fine():
    X, y = animals()
    whole = np.round(X * 10).astype(int)
    head = classifier().fit(whole.tolist(), y.tolist())
    np.testing.assert_allclose(
        head.predict_proba(whole), classifier().fit(whole * 1.0, y).predict_proba(whole * 1.0)
    )


@pytest.mark.parametrize("kind", ["class", "number"])
def test_fewer_layers_predict_the_same_where_the_others_weigh_nothing(kind):
    X, y = animals()
    if kind == "class":
        head = classifier(penalties={"low": 1e12}).fit(X, y)
    else:
        head = LayerRidgeRegressor(SLICES, penalties={"low": 1e12}).fit(X, X[:, 8])
    head.coef_[..., :4] = 0
    narrow = head.narrowed(["net/mid", "net/high"])
    if kind == "number":
        np.testing.assert_allclose(narrow.predict(X[:, 4:]), head.predict(X))
    else:
        np.testing.assert_allclose(narrow.predict_proba(X[:, 4:]), head.predict_proba(X))
    assert narrow.layer_slices == {"net/mid": slice(0, 3), "net/high": slice(3, 8)}
    assert narrow.n_features_in_ == 8
    assert not {"loo_proba_", "loo_prediction_"} & vars(narrow).keys()
    assert {"loo_proba_", "loo_prediction_"} & vars(head).keys()  # a copy let them go


def test_a_pickled_head_predicts_the_same_and_goes_on():
    X, y = animals()
    head = classifier().partial_fit(X[:40], y[:40])
    back = pickle.loads(pickle.dumps(head))
    np.testing.assert_array_equal(back.predict_proba(X), head.predict_proba(X))
    for one in (head, back):
        one.partial_fit(X[40:], y[40:])
    np.testing.assert_array_equal(back.coef_, head.coef_)
    assert clone(head).get_params() == head.get_params()


def test_penalties_given_by_tap_alone_reach_their_layer():
    X, y = animals()
    full = classifier(penalties={"net/mid": 5.0}, alphas=[1.0]).fit(X, y)
    short = classifier(penalties={"mid": 5.0}, alphas=[1.0]).fit(X, y)
    assert full.layer_penalties_ == {"net/low": 1.0, "net/mid": 5.0, "net/high": 1.0}
    np.testing.assert_array_equal(short.coef_, full.coef_)


# --- what is refused ----------------------------------------------------------------------------


def spoilt(value, row=17, column=5):
    X, y = animals()
    X[row, column] = value
    return X, y


def fit(X=None, y=None, weight=None, groups=None, **options):
    rows, labels = animals()
    return LayerRidgeClassifier(**({"layer_slices": SLICES} | options)).fit(
        rows if X is None else X, labels if y is None else y, weight, groups
    )


def stream(*labels, **options):
    X, _ = animals()
    head = LayerRidgeClassifier(class_weight=options.pop("class_weight", None))
    for number, own in enumerate(labels):
        head.partial_fit(X[: len(own)], list(own), **(options if number else {}))


NAN = "X has NaN or infinity: {} in layer {!r}, row {}, column {}. Every feature must be a finite "
NAN += "number: leave the row out, or embed it again."
ALONE = (
    "class 'owl' lies in one group alone (its {} rows): without the group nothing is known of it. "
    "Label rows of the class in another group, leave the class out, or give no groups."
)
OWLS = ["nest" if label == "owl" else None for label in animals()[1]]

REFUSED = {
    "nan": (lambda: fit(spoilt(np.nan)[0]), InputError, NAN.format("NaN", "net/mid", 17, 5)),
    "infinity": (
        lambda: fit(spoilt(-np.inf, 3, 11)[0]),
        InputError,
        NAN.format("infinity", "net/high", 3, 11),
    ),
    "nan in a later piece": (
        lambda: classifier().fit_chunks(
            lambda: zip(
                np.split(spoilt(np.nan)[0], 4), np.split(animals()[1], 4), strict=True
            )
        ),
        InputError,
        NAN.format("NaN", "net/mid", 17, 5),
    ),
    "nan in a stream": (
        lambda: classifier().partial_fit(*spoilt(np.nan)),
        InputError,
        NAN.format("NaN", "net/mid", 17, 5),
    ),
    "one class": (
        lambda: fit(y=["elk"] * 60),
        InputError,
        "y has only one class, 'elk': at least two are needed. Label rows of another class, or "
        "leave this target out.",
    ),
    "one class with weight": (
        lambda: fit(weight=(animals()[1] == "fox") * 1.0),
        InputError,
        "y has only one class, 'fox', in rows with a weight above 0: at least two are needed.",
    ),
    "a class in one group": (lambda: fit(groups=OWLS), InputError, ALONE.format(20)),
    "a class in one group with others": (
        lambda: fit(groups=["nest", *OWLS[1:]]),
        InputError,
        ALONE.format(20),
    ),
    "a class in one group but for rows of no weight": (
        lambda: fit(groups=OWLS, weight=np.r_[np.ones(30), np.zeros(30)]),
        InputError,
        ALONE.format(10),
    ),
    "a class in one fold": (
        lambda: fit(cv=[(np.arange(60), np.flatnonzero(animals()[1] == "owl"))]),
        InputError,
        ALONE.format(20),
    ),
    "groups of everything": (
        lambda: fit(groups=["wood"] * 60),
        InputError,
        "all 60 rows are of the group 'wood': without it nothing is left to fit. Give groups that "
        "split the rows, or none.",
    ),
    "groups of other rows": (
        lambda: fit(groups=["wood"] * 59),
        InputError,
        "groups has 59 values, but X has 60 rows. Give one for each row.",
    ),
    "a group wider than what is looked at": (
        lambda: passes(groups=["big", "big too"] * 30),
        InputError,
        "a group has 30 rows, and at most 20 rows are looked at. Give smaller groups, or none.",
    ),
    "a negative weight": (
        lambda: fit(weight=np.r_[1, -2, np.ones(58)]),
        InputError,
        "sample_weight is -2 in row 1, but must be a finite number that is not negative. 0 leaves "
        "a row out.",
    ),
    "a missing weight": (
        lambda: fit(weight=np.r_[np.ones(59), np.nan]),
        InputError,
        "sample_weight is nan in row 59, but must be a finite number that is not negative. 0 "
        "leaves a row out.",
    ),
    "no weight at all": (
        lambda: fit(weight=np.zeros(60)),
        InputError,
        "every weight in sample_weight is zero: there is nothing to fit. Give one row more.",
    ),
    "weights of other rows": (
        lambda: fit(weight=np.ones(59)),
        InputError,
        "sample_weight.shape == (59,), expected (60,): give one weight for each row.",
    ),
    "layers that overlap": (
        lambda: fit(layer_slices={"low": slice(0, 5), "high": slice(4, 12)}),
        InputError,
        "layers 'low' and 'high' share columns. Give each its own.",
    ),
    "layers with a gap": (
        lambda: fit(layer_slices={"low": slice(0, 4), "high": slice(6, 12)}),
        InputError,
        "columns 4 to 5 of X are of no layer. Give layer_slices that leave no gap, or leave these "
        "columns out of X.",
    ),
    "columns left over": (
        lambda: fit(layer_slices={"low": slice(0, 4), "high": slice(4, 11)}),
        InputError,
        "columns 11 to 11 of X are of no layer. Give layer_slices that leave no gap, or leave "
        "these columns out of X.",
    ),
    "layers beyond X": (
        lambda: fit(layer_slices={"low": slice(0, 13)}),
        InputError,
        "layer 'low' is slice(0, 13, None), but X has the columns 0 to 11. Give the layer_slices "
        "that belong to this X.",
    ),
    "unknown penalties": (
        lambda: fit(penalties="evidance"),
        OptionError,
        "penalties is 'evidance', but must be uniform, evidence, or a number above 0 for each "
        "layer.",
    ),
    "a penalty of nothing": (
        lambda: fit(penalties={"low": 0}),
        OptionError,
        "penalties is {'low': 0}, but must hold a finite number above 0 for each layer that it "
        "names, of net/low, net/mid, net/high; the others get 1.",
    ),
    "a penalty of no layer": (
        lambda: fit(penalties={"hihg": 2}),
        UnknownNameError,
        "unknown layer 'hihg'. Did you mean 'net/high'? Accepted: net/low, net/mid, net/high.",
    ),
    "unknown scaling": (
        lambda: fit(scaling="robust"),
        OptionError,
        "scaling is 'robust', but must be one of trace, standard, shrunk.",
    ),
    "unknown calibration": (
        lambda: fit(calibration="platt"),
        OptionError,
        "calibration is 'platt', but must be temperature or matrix.",
    ),
    "no strengths": (
        lambda: fit(alphas=[]),
        OptionError,
        "alphas is [], but must hold one strength or more, none of them negative.",
    ),
    "a negative strength": (
        lambda: fit(alphas=[1.0, -1.0]),
        OptionError,
        "alphas is [1.0, -1.0], but must hold one strength or more, none of them negative.",
    ),
    "a class that a stream does not know": (
        lambda: stream(["elk", "owl"], ["owl", "yak"]),
        InputError,
        "y has the class 'yak', but the first call knew only 'elk', 'owl'. Name all classes "
        "there: classes=[...].",
    ),
    "other classes in a stream": (
        lambda: stream(["elk", "owl"], ["owl", "yak"], classes=["yak", "owl"]),
        InputError,
        "classes is ['owl', 'yak'], but was ['elk', 'owl'] in the first call. Give the same, or "
        "leave it out.",
    ),
    "a stream of one class that names no others": (
        lambda: stream(["elk", "elk"]),
        InputError,
        "y has only one class, 'elk': at least two are needed. Name all classes in the first call: "
        "classes=[...].",
    ),
    "a balanced stream": (
        lambda: stream(["elk", "owl"], class_weight="balanced"),
        OptionError,
        "class_weight is 'balanced', but the sizes of the classes are not known before the last "
        "row has come. Give a dict of weights, or sample_weight.",
    ),
    "pieces of different widths": (
        lambda: classifier().fit_chunks(lambda: iter([(np.eye(3), "abc"), (np.eye(4), "abcd")])),
        InputError,
        "chunks gave rows of widths [3, 4], but must give (X, y) of one width, anew at every call.",
    ),
    "no pieces": (
        lambda: classifier().fit_chunks(lambda: iter([])),
        InputError,
        "chunks gave no rows, but must give (X, y) of one width, anew at every call.",
    ),
    "numbers that are none": (
        lambda: LayerRidgeRegressor().fit_chunks(lambda: iter([(np.eye(3), [1.0, np.nan, 2.0])])),
        InputError,
        "y has NaN or infinity in row 1, but must be a finite number: leave out rows without one.",
    ),
}  # fmt: skip


def passes(groups):
    X, y = animals()
    head = classifier()
    head.n_features_in_ = D
    head.fit_passes(lambda: iter([X]), y, groups=groups, most=20)


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_in_full(case):
    act, error, sentence = REFUSED[case]
    with pytest.raises(error) as caught:
        act()
    assert str(caught.value) == sentence
