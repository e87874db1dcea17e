"""The network that is tuned: at first it predicts what the frozen model predicts."""

import dataclasses

import numpy as np
import pytest
import torch
from photo_album import skies
from scipy.special import expit, softmax
from small_world import by_hand
from tuning_world import TAPS, model_of, prepared, striped, three_blocks, tiny

from pipeline.backbones import Cut
from pipeline.finetuning import finetune
from pipeline.finetuning import outcome as outcome_module
from pipeline.finetuning import start as start_module
from pipeline.finetuning.looking import Looking
from pipeline.finetuning.network import TunableNetwork
from pipeline.finetuning.rows import find_rows
from pipeline.finetuning.start import Start
from pipeline.inputs import View
from pipeline.model import folded_heads
from pipeline.samples import SampleSet, folds

N = 48


def started(model, samples):
    """Everything a tuning starts from: rows, vectors, heads that were fitted again."""
    backbone = model.backbones[next(iter(model.specs))]
    rows = find_rows(model, samples)
    looking = Looking(backbone, model.specs[backbone.name], model.layers, "cpu")
    X = looking.vectors(rows.samples)
    return rows, X, Start.of(model, rows, X, seed=0)


def network_of(model, start, n_blocks=1):
    backbone = model.backbones[next(iter(model.specs))]
    cut = Cut(backbone, [name.rpartition("/")[2] for name in model.layers], n_blocks)
    return TunableNetwork(cut, start)


def frozen_network(model, samples, n_blocks=1):
    """The network with the very heads of the model, fitted on all of its rows."""
    _, _, start = started(model, samples)
    return network_of(model, dataclasses.replace(start, heads=folded_heads(model)), n_blocks)


def scores(network, model, samples):
    (spec,) = model.specs.values()
    pictures = torch.from_numpy(prepared(samples.sources, spec.preprocess))
    with torch.no_grad():
        return [own.double().numpy() for own in network(pictures)]


@pytest.fixture(scope="module")
def samples():
    return striped(N)


HEADS = [
    ("ridge", "concat"), ("ridge", "last"), ("ridge", "average"), ("ridge", "weighted"),
    ("ridge", "late"), ("ridge", "forward"), ("ridge", "selection"), ("logistic", "concat"),
    ("svm", "weighted"), ("lda", "last"),
]  # fmt: skip


@pytest.mark.parametrize(("head", "fusion"), HEADS)
def test_before_the_first_step_it_gives_the_probabilities_of_the_model(samples, head, fusion):
    model = model_of(samples, head=head, fusion=fusion)
    (found,) = scores(frozen_network(model, samples), model, samples)
    expected = model.predict_proba(samples)
    np.testing.assert_allclose(softmax(found, axis=1), expected, atol=1e-4)
    assert np.ptp(expected) > 0.02


def test_a_head_of_several_layers_at_once_is_one_map_too(samples):
    model = model_of(samples, head="layer_ridge", fusion="auto")
    (found,) = scores(frozen_network(model, samples), model, samples)
    np.testing.assert_allclose(softmax(found, axis=1), model.predict_proba(samples), atol=1e-4)


@pytest.mark.parametrize("name", ["resnet", "vit", "efficientnet"])
@pytest.mark.parametrize("kinds", [2, 3])
def test_so_do_networks_of_convolutions_and_of_attention(name, kinds):
    pictures, labels = skies(10)
    samples = SampleSet.from_list(list(pictures[: 10 * kinds]), {"label": labels[: 10 * kinds]})
    model = model_of(samples, tiny(name))
    (found,) = scores(frozen_network(model, samples, 2), model, samples)
    assert found.shape == (10 * kinds, kinds)
    np.testing.assert_allclose(softmax(found, axis=1), model.predict_proba(samples), atol=1e-4)


def test_a_number_comes_with_mean_0_and_variance_1_in_the_training_rows(samples):
    light = [1e4 + 30 * picture.mean() for picture in samples.sources]
    numbers = dataclasses.replace(samples, columns={"light": np.array(light, object)})
    model = model_of(numbers)
    (found,) = scores(frozen_network(model, numbers), model, numbers)
    rows = find_rows(model, numbers)
    known = rows.targets["light"].values[rows.train]
    np.testing.assert_allclose(
        found[:, 0] * known.std() + known.mean(), model.predict(numbers), rtol=1e-5
    )


def test_several_labels_are_a_logit_each(samples):
    tags = ["|".join(["odd"] * (row % 2) + ["flat"] * (row % 3 == 0)) or "|" for row in range(N)]
    tagged = dataclasses.replace(samples, columns={"tags": np.array(tags, object)})
    model = model_of(tagged, head="logistic", target_kind=("tags=multilabel",))
    (found,) = scores(frozen_network(model, tagged), model, tagged)
    np.testing.assert_allclose(expit(found), model.predict_proba(tagged), atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"head": "ridge"},
        {"head": "ridge", "fusion": "late", "class_weight": "balanced"},
        {"head": "logistic", "fusion": "weighted", "class_weight": "balanced"},
        {"head": "svm", "fusion": "last"},
        {"head": "layer_ridge", "fusion": "auto"},
    ],
    ids=lambda options: options["head"],
)
def test_the_heads_that_start_it_have_not_seen_the_validation_rows(samples, options):
    """They are those of a model that holds these rows out too."""
    kinds = samples.columns["label"].copy()
    kinds[::6] = "right"  # classes of different sizes
    samples = dataclasses.replace(samples, columns={"label": kinds})
    model = model_of(samples, **options)
    rows, X, start = started(model, samples)
    aside = {rows.samples.ids[row] for row in rows.validation} | set(model.split.test_ids)
    parts = tuple("test" if name in aside else "train" for name in samples.ids)
    other = model_of(dataclasses.replace(samples, split=parts), **options)
    assert set(other.split.train_ids) == {rows.samples.ids[row] for row in rows.train}
    expected = other.predict_proba(rows.samples)
    np.testing.assert_allclose(start.heads["label"].outputs(X), expected, atol=1e-6)
    validation = start.heads["label"].scores(X[rows.validation])
    np.testing.assert_allclose(start.scores["label"], validation)


@pytest.mark.parametrize("head", ["ridge", "logistic"])
def test_what_it_is_up_against_has_learnt_from_all_rows_but_those_it_is_asked_about(head):
    """So it is as good as the model that came in: models that hold a fold of rows out each."""
    samples = striped(40)
    model = model_of(samples, head=head)
    rows, _, start = started(model, samples)
    own = rows.targets["label"].subset(rows.validation)
    dealt = folds(own, 2, seed=0, digests=[rows.digests[row] for row in rows.validation])
    assert [len(asked) for _, asked in dealt] == [2, 2]  # of five, one is the only one of its class
    for _, asked in dealt:
        aside = {rows.samples.ids[row] for row in rows.validation[asked]}
        aside |= set(model.split.test_ids)
        parts = tuple("test" if name in aside else "train" for name in samples.ids)
        other = model_of(dataclasses.replace(samples, split=parts), head=head)
        expected = other.predict_proba(rows.samples.subset(rows.validation[asked]))
        found = softmax(start.rival["label"][asked], axis=1)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("n", "n_folds"), [(75, 3), (150, 5)])
def test_no_head_that_it_is_up_against_lacks_rows_of_the_class_it_is_asked_about(
    n, n_folds, monkeypatch
):
    """It would look worse than the model that came in, and a tuned network better."""
    fitted = []
    real = start_module._Fits.head

    def watched(fits, name, own):
        fitted.append(np.bincount(fits.rows.targets[name].subset(own).encode()))
        return real(fits, name, own)

    monkeypatch.setattr(start_module._Fits, "head", watched)
    samples = striped(n)
    started(model_of(samples), samples)
    _, *crossed = fitted
    assert len(crossed) == n_folds
    assert all(np.ptp(counts) <= 1 for counts in crossed)


def test_a_row_that_is_the_only_one_of_its_class_is_asked_by_the_head_that_has_seen_none():
    samples = striped(48)
    model = model_of(samples)
    rows, X, _ = started(model, samples)
    target = rows.targets["label"]
    kinds = list(target.values[rows.validation])
    alone = rows.validation[[kinds.index(kind) for kind in target.classes]]
    start = Start.of(model, dataclasses.replace(rows, validation=alone), X, seed=0)
    np.testing.assert_array_equal(start.rival["label"], start.scores["label"])


def test_a_model_that_was_tuned_begins_with_its_own_head(samples):
    model = model_of(samples)
    tuned = finetune(model, samples, views=1, max_epochs=2, lr=1e-3)
    again = outcome_module._tuned(model, tuned)
    rows, _, start = started(again, samples)
    own, found = folded_heads(again)["label"], start.heads["label"]
    np.testing.assert_allclose(found.coef, own.coef)
    np.testing.assert_allclose(found.intercept, own.intercept)
    np.testing.assert_allclose(start.rival["label"], start.scores["label"])
    assert tuple(rows.samples.ids[row] for row in rows.validation) == tuned.validation_ids


def test_rows_of_one_group_are_never_on_both_sides_there_either():
    """A label of another row of the group moves nothing; that of a stranger does."""
    samples = striped(48)
    group = np.array([f"g{row // 3}" for row in range(48)], object)
    samples = dataclasses.replace(samples, columns={**samples.columns, "group": group})
    model = model_of(samples, target="label", group="group")
    rows, X, start = started(model, samples)
    own = dict(zip(samples.ids, group, strict=True))
    groups = [own[rows.samples.ids[row]] for row in rows.validation]
    assert 1 < len(set(groups)) < len(groups)
    target = rows.targets["label"]
    values = target.values.copy()
    row = rows.validation[0]
    values[row] = next(label for label in target.classes if label != values[row])
    changed = dataclasses.replace(
        rows, targets={"label": dataclasses.replace(target, values=values)}
    )
    other = Start.of(model, changed, X, seed=0)
    moved = np.abs(other.rival["label"] - start.rival["label"]).max(axis=1) > 1e-9
    kin = np.array([name == groups[0] for name in groups])
    assert not moved[kin].any()
    assert moved[~kin].any()


def test_vectors_are_those_of_the_network_and_views_change_the_pictures(samples):
    backbone = three_blocks()
    model = model_of(samples, backbone)
    rows = find_rows(model, samples)
    looking = Looking(backbone, model.specs["own"], model.layers, "cpu")
    own = rows.samples.subset(np.arange(5))
    for view, pictures in (
        (None, own.sources),
        (View.mirror(), [picture[:, ::-1] for picture in own.sources]),
    ):
        expected = by_hand(backbone, list(pictures))
        found = looking.vectors(own, view)
        np.testing.assert_allclose(found, np.hstack([expected[tap] for tap in TAPS]), rtol=2e-3,
                                   atol=1e-3)  # fmt: skip


def test_columns_go_in_around_zero_and_each_layer_with_variance_1(samples):
    model = model_of(samples)
    rows, X, start = started(model, samples)
    scaled = (X[rows.train] - start.offset) * start.scale
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-5)
    ends = np.cumsum(list(model.layers.values()))
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        assert scaled[:, begin:end].var(0).mean() == pytest.approx(1, rel=1e-4)
        assert np.ptp(start.scale[begin:end]) == 0


def test_it_folds_back_into_the_heads_it_was_made_of(samples):
    model = model_of(samples)
    _, X, start = started(model, samples)
    back = network_of(model, start).folded()["label"]
    expected = start.heads["label"].scores(X)
    np.testing.assert_allclose(back.scores(X), expected, atol=1e-4)
    assert (back.classes.tolist(), back.kind) == (["flat", "left", "right"], "class")
    assert np.ptp(expected) > 0.5


def test_after_steps_it_folds_into_what_the_network_gives(samples):
    light = [picture.mean() for picture in samples.sources]
    numbers = dataclasses.replace(samples, columns={"light": np.array(light, object)})
    model = model_of(numbers)
    rows, X, start = started(model, numbers)
    network = network_of(model, start)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        network.heads[0].weight.add_(
            torch.randn(network.heads[0].weight.shape, generator=generator)
        )
    (found,) = scores(network, model, rows.samples)
    task = start.objectives[0]
    back = network.folded()["light"]
    np.testing.assert_allclose(
        back.outputs(X)[:, 0], found[:, 0] * task.spread + task.mean, rtol=1e-3, atol=0.05
    )


def test_its_state_is_what_is_trained_and_nothing_else(samples):
    model = model_of(samples)
    _, _, start = started(model, samples)
    network = network_of(model, start, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    kept = network.state()
    assert set(kept) == {
        "heads.0.weight", "heads.0.bias", "cut.module.high.0.weight", "cut.module.high.0.bias",
        "cut.module.top.weight", "cut.module.top.bias", "doubt",
    }  # fmt: skip
    with torch.no_grad():
        for name in kept:
            network.get_parameter(name).add_(1)
    assert not torch.equal(network.state()["heads.0.bias"], kept["heads.0.bias"])
    network.fill(kept)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_levels_are_the_trained_blocks_the_top_one_first(samples):
    model = model_of(samples)
    _, _, start = started(model, samples)
    network = network_of(model, start, 3)
    top, high, middle = network.levels()
    module = network.cut.module
    assert {id(own) for own in top} == {id(own) for own in module.top.parameters()}
    assert {id(own) for own in high} == {id(own) for own in module.high.parameters()}
    assert {id(own) for own in middle} == {id(own) for own in module.middle.parameters()}


def test_it_never_goes_into_training_mode(samples):
    model = model_of(samples)
    network = network_of(model, started(model, samples)[2])
    assert network.train() is network
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize(("turned", "mirrors"), [(False, True), (True, False)])
def test_the_validation_rows_say_whether_mirror_images_keep_their_labels(turned, mirrors):
    """Left and right stripes are each other's mirror images; flat and upright ones are not."""
    samples = striped(150, strength=60)
    keep = [row for row in range(150) if row % 3 != 0] if turned else range(150)
    labels = ["flat" if kind == "flat" else "slanted" for kind in samples.columns["label"]]
    if not turned:
        samples = dataclasses.replace(samples, columns={"label": np.array(labels, object)})
    samples = samples.subset(np.array(list(keep)))
    model = model_of(samples)
    rows, X, start = started(model, samples)
    looking = Looking(model.backbones["own"], model.specs["own"], model.layers, "cpu")
    mirrored = looking.vectors(rows.samples.subset(rows.validation), View.mirror())
    assert start.mirrors(X[rows.validation])
    assert start.mirrors(mirrored) is mirrors
